"""A job that takes its worker down every time: stopped after some attempts, while all others are done."""

from __future__ import annotations

import json
from collections import Counter

from chaoslab.crew import Crew, PoolCrew
from chaoslab.figures import Figures
from chaoslab.laboratory import Laboratory, wait_for
from chaoslab.watching import Watch, job_states

EXITS, CRASHES = 3, 5  # seeds


def poisoned_jobs(laboratory: Laboratory, *, n_jobs: int = 8, attempts: int = 3, pooled: bool = True) -> Figures:
    """Plan one job that calls ``os._exit`` and one that crashes among others."""
    figures = Figures("poisoned jobs", f"2 of {n_jobs} jobs end their process, {attempts} attempts")
    bench = laboratory.bench("poisoned", max_attempts=attempts, lease=2.0)
    bench.trivial_jobs("poisoned", seeds=range(1, n_jobs + 1), exits=[EXITS], crashes=[CRASHES])
    watch = Watch(bench)
    crew = PoolCrew(bench, 2, "--idle-exit", "2") if pooled else Crew(bench, 2)

    def over() -> bool:
        watch.look()
        crew.tend()
        return job_states(bench) == {"done": n_jobs - 2, "poisoned": 2}

    wait_for(over, "the end of all jobs", seconds=180)
    if pooled:
        wait_for(lambda: crew.process.poll() is not None, "the end of the pool, which has nothing left", seconds=90)
        figures.equal("exit code of the pool", crew.process.returncode, 3)
    crew.stop()
    begun = Counter(attempt.job for attempt in bench.journal.attempts())
    figures.equal("jobs by how often they were begun", dict(Counter(begun.values())), {1: n_jobs - 2, attempts: 2})
    rows = bench.query("SELECT n_deaths, n_starts, last_words FROM pool_job WHERE job_state = 'poisoned'")
    figures.equal("deaths counted", [row["n_deaths"] for row in rows], [attempts] * 2)
    figures.note("last words", "; ".join(sorted(row["last_words"].splitlines()[0] for row in rows)))
    figures.equal("stored", bench.count("__trained_model"), n_jobs - 2)
    figures.equal("reservations left", bench.count("~jobs", "status = 'reserved'"), 0)
    status = json.loads(bench.run("status", "--json", "--schema", bench.schema, code=3))
    figures.check("`december status` shows them as poisoned", "poisoned" in json.dumps(status))
    before = len(bench.journal.attempts())
    worker = bench.start_worker()
    worker.process.wait(timeout=60)
    figures.equal("attempts of another worker afterwards", len(bench.journal.attempts()) - before, 0)
    return figures.finish()
