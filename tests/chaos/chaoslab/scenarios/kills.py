"""``kill -9``, SIGTERM and USR2: workers that are taken down in the middle of a training, again and again."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from dataclasses import dataclass
from typing import Any

from chaoslab.crew import Crew, Member, PoolCrew
from chaoslab.figures import Figures
from chaoslab.journal import Attempt
from chaoslab.laboratory import QUICK, Bench, Laboratory
from chaoslab.stored import Reference, check_stored_once
from chaoslab.watching import Hold, Watch, deaths, job_states

RELEASE_WITHIN = 10.0  # seconds from SIGTERM to a job that is free again


@dataclass(frozen=True)
class Size:
    """How much of it.

    Attributes
    ----------
    n_faults
        Kills or signals.
    n_seeds
        Trainings are six times as many.
    epochs, pause
        Of a training; seconds after each epoch.
    alone, pooled
        Workers that no supervisor looks after, and workers of a ``december pool``.
    lease
        Of the workers (s).
    """

    n_faults: int
    n_seeds: int
    epochs: int
    pause: float
    alone: int
    pooled: int
    lease: float = 3.0


def trainers(epochs: int, pause: float) -> list[dict[str, Any]]:
    """Return six trainers: baselines and DECEMber, with and without a shared pretraining."""
    common = {**QUICK, "max_iter": epochs, "patience": epochs, "pause": pause}
    half = {**common, "pretrain_epochs": epochs // 2}
    baseline, december = "chaoslab.workloads.baseline", "chaoslab.workloads.december"
    return [
        {"fn": baseline, "comment": "baseline", "config": common},
        {"fn": baseline, "comment": "baseline after pretraining", "config": {**half, "share_pretraining": False}},
        {"fn": baseline, "comment": "patient baseline", "config": {**common, "patience": 3, "lr_decay_steps": 50}},
        {"fn": december, "comment": "K 2", "config": {**half, "n_clusters": 2}},
        {"fn": december, "comment": "K 3", "config": {**half, "n_clusters": 3}},
        {
            "fn": december,
            "comment": "K 2, own pretraining",
            "config": {**half, "n_clusters": 2, "share_pretraining": False},
        },
    ]


@dataclass
class Kill:
    """One fault, and what it hit."""

    t: float  # seconds since the epoch
    member: Member
    hold: Hold | None  # the job that was held
    gone: float | None = None  # when the process had ended


def kill_9(laboratory: Laboratory, size: Size) -> Figures:
    """Kill random workers with -9 during a sweep."""
    figures = Figures("kill -9", f"{size.n_faults} kills over {6 * size.n_seeds} trainings")
    bench = laboratory.bench("kills", lease=size.lease)
    rng = bench.random
    watch, reference = _begin(bench, size)
    crews = _crews(bench, size)

    def kill(member: Member) -> Kill:
        # Stopped first, so that what the tables say is still so when it is killed.
        os.kill(member.pid, signal.SIGSTOP)
        time.sleep(0.02)
        hold = watch.held_by(member.worker_id)
        os.kill(member.pid, signal.SIGKILL)
        return Kill(time.time(), member, hold)

    kills = _under_fire(bench, watch, crews, size, kill, rng)
    figures.equal("workers killed", len(kills), size.n_faults)
    figures.note("kills in a job", sum(kill.hold is not None for kill in kills))
    figures.equal("attempts counted as deaths", deaths(bench), sum(kill.hold is not None for kill in kills))
    _time_lost(figures, bench, watch, kills)
    check_stored_once(figures, bench, 6 * size.n_seeds, reference)
    figures.equal("states of the jobs", job_states(bench), {"done": 6 * size.n_seeds})
    return figures.finish()


def interruptions(laboratory: Laboratory, size: Size) -> Figures:
    """Interrupt random workers with SIGTERM, USR2 and SIGINT during a sweep."""
    figures = Figures("SIGTERM / USR2", f"{size.n_faults} signals over {6 * size.n_seeds} trainings")
    bench = laboratory.bench("interruptions", lease=size.lease)
    rng = bench.random
    watch, reference = _begin(bench, size)
    crews = _crews(bench, size)
    sent: list[int] = []

    def interrupt(member: Member) -> Kill:
        hold = watch.held_by(member.worker_id)
        sent.append(rng.choice([signal.SIGTERM, signal.SIGUSR2, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT]))
        os.kill(member.pid, sent[-1])
        return Kill(time.time(), member, hold)

    kills = _under_fire(bench, watch, crews, size, interrupt, rng)
    names = {signal.Signals(number).name: sent.count(number) for number in sorted(set(sent))}
    figures.equal("signals sent", len(kills), size.n_faults)
    figures.note("of these", ", ".join(f"{name} {count}" for name, count in names.items()))
    held = [kill for kill in kills if kill.hold is not None]
    figures.note("signals in a job", len(held))
    released = [kill.hold.free - kill.t for kill in held if kill.hold.free is not None]
    figures.spread("from the signal to the job being free", released)
    figures.check(f"released within {RELEASE_WITHIN:.0f} s", max(released, default=0) <= RELEASE_WITHIN)
    ended = {worker.pid: worker.process.returncode for worker in bench.workers}
    pairs = ((128 + number, kill.member.pid) for number, kill in zip(sent, kills, strict=True))
    codes = [(expected, ended[pid]) for expected, pid in pairs if pid in ended]
    wrong = [pair for pair in codes if pair[0] != pair[1]]
    figures.equal(f"exit codes that do not tell the signal, of {len(codes)}", wrong, [])
    figures.equal("attempts counted as deaths", deaths(bench), 0)
    _time_lost(figures, bench, watch, kills)
    check_stored_once(figures, bench, 6 * size.n_seeds, reference)
    figures.equal("states of the jobs", job_states(bench), {"done": 6 * size.n_seeds})
    return figures.finish()


def _begin(bench: Bench, size: Size) -> tuple[Watch, Reference]:
    bench.trainings(trainers(size.epochs, size.pause), seeds=range(1, size.n_seeds + 1))
    return Watch(bench), Reference(bench)


def _crews(bench: Bench, size: Size) -> list[Any]:
    crews: list[Any] = [Crew(bench, size.alone)] if size.alone else []
    if size.pooled:
        crews.append(PoolCrew(bench, size.pooled, "--idle-exit", "600"))
    return crews


def _under_fire(bench: Bench, watch: Watch, crews: list[Any], size: Size, fault: Any, rng: random.Random) -> list[Kill]:
    """Commit faults while the sweep goes on; return when everything is stored.

    Each fault has its time in epochs that were computed by all workers together, so that the faults are spread over the
    sweep on a machine of any speed.
    """
    expected, kills = 6 * size.n_seeds, []
    deadline = time.monotonic() + 300 + 30 * size.n_faults + expected * size.epochs * size.pause
    due = sorted(rng.uniform(0.01, 0.95) * expected * size.epochs for _ in range(size.n_faults))
    stored = -1
    while (now_stored := bench.count("__trained_model")) < expected or watch_running(watch):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{now_stored} of {expected} trainings are stored; {bench.said()[-3000:]}")
        if now_stored != stored:
            stored = now_stored
            bench.laboratory.say(f"{bench.name}: {stored}/{expected} stored, {len(kills)} faults")
        for crew in crews:
            crew.tend()
        watch.look()
        watch.note_alive([member.worker_id for crew in crews for member in crew.members()])
        hit = {kill.member.worker_id for kill in kills}  # a second SIGINT ends a worker at once, as it should
        at_work = [member for member in _at_work(watch, crews) if member.worker_id not in hit]
        if at_work and len(kills) < size.n_faults and bench.journal.epochs_computed() >= due[len(kills)]:
            kills.append(fault(rng.choice(at_work)))
        time.sleep(0.1)
    hit = {kill.member.pid for kill in kills}
    for worker in bench.workers:
        if worker.pid in hit:  # it may still be ending
            worker.process.wait(timeout=60)
    for crew in crews:
        crew.stop()
    watch.look()
    return kills


def watch_running(watch: Watch) -> bool:
    """Return whether a job is held."""
    return any(hold.free is None for hold in watch.holds.values())


def _at_work(watch: Watch, crews: list[Any]) -> list[Member]:
    """Return the workers that hold a job: the others, which are starting, have nothing to lose."""
    holders = {hold.worker_id for hold in watch.holds.values() if hold.free is None}
    return [member for crew in crews for member in crew.members() if member.worker_id in holders]


def _time_lost(figures: Figures, bench: Bench, watch: Watch, kills: list[Kill]) -> None:
    """Work out what each kill cost: what had to be computed again, and the time until somebody could.

    Somebody must be there: the time in which all workers were starting, which is what so many kills at so few workers
    lead to, is a figure of its own.
    """
    attempts = bench.journal.attempts()
    again, waits, alone, lost, taken_up, seconds = [], [], [], [], [], []
    for kill in kills:
        if kill.hold is None or kill.hold.free is None:
            continue
        of_job = [attempt for attempt in attempts if attempt.job == kill.hold.job]
        killed = [attempt for attempt in of_job if attempt.pid == kill.member.pid]
        later = [attempt for attempt in of_job if attempt.began > kill.t]
        alone.append(watch.seconds_without_a_worker(kill.t, kill.hold.free))
        waits.append(kill.hold.free - kill.t - alone[-1])
        if not killed or killed[-1].ended:
            lost.append(waits[-1])  # killed while it loaded the data, or stored the result
            continue
        again.append(_epochs_again(killed[-1], later[0] if later else None))
        pace = killed[-1].seconds_per_epoch() or _typical_pace(attempts)
        seconds.append(pace)
        lost.append(waits[-1] + again[-1] * pace)
        if later:
            taken_up.append(later[0].began - kill.t)
    interval = bench.checkpoint_every * max(seconds, default=0.0)
    figures.spread("seconds per epoch", seconds)
    figures.spread("epochs computed twice, per fault", again, "epochs")
    figures.spread("from the fault to the job being free, while a worker was there", waits)
    figures.spread("in addition, all workers were just starting", alone)
    figures.spread("from the fault to the job being taken up (a worker must be free and started)", taken_up)
    figures.spread("time lost per fault", lost)
    figures.check(
        f"no more than a checkpoint interval ({interval:.1f} s) plus the lease ({bench.lease:g} s) lost per fault",
        max(lost, default=0.0) <= interval + bench.lease,
        f"{max(lost, default=0.0):.2f} s",
    )
    figures.check(
        "no more epochs computed twice than a checkpoint interval",
        max(again, default=0) <= bench.checkpoint_every,
        f"{max(again, default=0)} of {bench.checkpoint_every}",
    )


def _epochs_again(killed: Attempt, later: Attempt | None) -> int:
    """Return how many epochs of the killed attempt the next one computed again."""
    if not killed.epochs or later is None or not later.epochs:
        return 0
    return max(0, max(killed.epochs) - min(later.epochs) + 1)


def _typical_pace(attempts: list[Attempt]) -> float:
    known = [pace for attempt in attempts if (pace := attempt.seconds_per_epoch()) is not None]
    return statistics.median(known) if known else 0.0
