"""A corrupt checkpoint, a corrupt result in the spool, a half-written attachment: found out, never used."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

from chaoslab.faults import cut_short, flip_bit, server_away
from chaoslab.figures import Figures
from chaoslab.laboratory import QUICK, Bench, Laboratory, Worker, wait_for
from chaoslab.scenarios.stores import checkpoints
from chaoslab.stored import (
    Reference,
    attachment_path,
    check_stored_once,
    files_in_store,
    stored_models,
    unreferenced_files,
)

OPTIONS = ("--poll", "0.3", "--idle-exit", "4")


def damaged_files(laboratory: Laboratory, *, epochs: int = 16, pause: float = 0.15) -> Figures:
    """Damage one file after the other: a checkpoint, a finished result, a stored model."""
    figures = Figures("damaged files", "checkpoint and spool with a flipped bit, half an attachment")
    bench = laboratory.bench("damage", lease=2.0)
    config = {**QUICK, "max_iter": epochs, "patience": epochs, "pause": pause}
    trainer = {"fn": "chaoslab.workloads.baseline", "comment": "baseline", "config": config}
    bench.trainings([trainer], seeds=[1, 2])
    reference = Reference(bench, seeds=[1, 2, 3, 4])
    _damaged_checkpoint(figures, bench)
    _spooled(figures, bench)
    check_stored_once(figures, bench, 4, reference)
    _half_an_upload(figures, bench)
    _half_an_attachment(figures, bench)
    return figures.finish()


def _said(worker: Worker, pattern: str) -> str:
    found = re.search(f"[^\n]*{pattern}[^\n]*", worker.said())
    return found[0] if found else ""


def _attempts(bench: Bench, worker: Worker) -> list[Any]:
    return [attempt for attempt in bench.journal.attempts() if attempt.pid == worker.pid]


def _damaged_checkpoint(figures: Figures, bench: Bench) -> None:
    """Kill a worker, flip a bit of its checkpoint: the next one starts that training over, and says why."""
    first = bench.start_worker(*OPTIONS)
    wait_for(lambda: checkpoints(bench), "a checkpoint", pause=0.05)
    first.process.kill()
    first.process.wait()
    (path,) = checkpoints(bench)
    flip_bit(path, bench.random)
    job = _attempts(bench, first)[0].job
    other = bench.start_worker(*OPTIONS)
    wait_for(lambda: bench.count("__trained_model") == 2, "the results", seconds=90)
    other.process.wait(timeout=60)
    words = _said(other, "checkpoint .* is damaged and is not used")
    figures.check("the damaged checkpoint is reported", bool(words), words)
    again = [attempt for attempt in _attempts(bench, other) if attempt.job == job]
    figures.equal("started over at epoch", [min(attempt.epochs) for attempt in again], [1])


def spooled(bench: Bench) -> list[Path]:
    """Return the finished results on the disk."""
    return sorted(bench.spool.glob(f"{bench.schema}/*/[0-9a-f]*"))


def _kill_with_a_result(bench: Bench, seed: int) -> Path:
    """Plan one more training; kill the server at its end, and its worker once the result is in the spool."""
    columns = "dataset_fn, dataset_hash, model_fn, model_hash, trainer_fn, trainer_hash"
    bench.query("INSERT INTO seed (seed) VALUES (%s)", [seed])
    bench.query(
        f"INSERT INTO training_plan ({columns}, seed) SELECT {columns}, %s FROM training_plan WHERE seed = 1", [seed]
    )
    worker = bench.start_worker(*OPTIONS)
    wait_for(lambda: any(attempt.epochs for attempt in _attempts(bench, worker)), "an epoch", pause=0.05)
    with server_away(bench.laboratory):
        wait_for(lambda: spooled(bench), "a result in the spool", seconds=60)
        wait_for(lambda: "waiting: " in worker.said(), "the words of the worker", seconds=30)
        time.sleep(0.2)
        worker.process.kill()
        worker.process.wait()
    (path,) = spooled(bench)
    return path


def _spooled(figures: Figures, bench: Bench) -> None:
    """Check that a whole result in the spool is delivered, and that one with a flipped bit is computed again."""
    stored = bench.count("__trained_model")
    for seed, damaged in ((3, False), (4, True)):
        path = _kill_with_a_result(bench, seed)
        if damaged:
            flip_bit(path, bench.random)
        worker = bench.start_worker(*OPTIONS)
        wait_for(lambda stored=stored: bench.count("__trained_model") == stored + 1, "the result", seconds=90)
        stored += 1
        worker.process.wait(timeout=60)
        words = _said(worker, "is damaged and is not used" if damaged else "delivered from the spool")
        figures.check("the damaged result is reported" if damaged else "the whole result is delivered", words, words)
        epochs = sum(len(attempt.epochs) for attempt in _attempts(bench, worker))
        what = "epochs computed for " + ("the damaged result" if damaged else "the whole result")
        figures.check(what, (epochs > 0) == damaged, epochs)
    figures.equal("results left in the spool", spooled(bench), [])
    figures.equal("damaged results kept aside", len(list((bench.spool / "damaged").glob("*"))), 1)


def _half_an_upload(figures: Figures, bench: Bench) -> None:
    """Leave the half of a model that no row refers to, as a worker does that is killed while it stores one."""
    whole = bench.store_folder / files_in_store(bench)[0]
    uploaded = bench.store_folder / attachment_path(bench, bytes(16), "never_inserted.pth.tar")
    halves = [uploaded, whole.with_name(whole.name + ".copying")]
    two_days_ago = time.time() - 2 * 86400
    for half in halves:
        half.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(whole.read_bytes())
        cut_short(half)
        os.utime(half, (two_days_ago, two_days_ago))
    before = stored_models(bench)
    words = ("store", "clean", "--schema", bench.schema)
    bench.run(*words)
    names = sorted(str(half.relative_to(bench.store_folder)) for half in halves)
    figures.equal("halves of models: left by a dry run", unreferenced_files(bench), names)
    bench.run(*words, "--delete")
    figures.equal("left after `december store clean --delete`", unreferenced_files(bench), [])
    figures.check("stored models untouched by it", stored_models(bench) == before, f"{len(before)} models")


def _half_an_attachment(figures: Figures, bench: Bench) -> None:
    """Cut a stored model in half, flip a bit in another: what reads them fails with the reason, the others go on."""
    rows = bench.query(
        "SELECT storage.seed, storage.model_state, file.attachment_name "
        "FROM `__trained_model__model_storage` AS storage JOIN `~external_minio` AS file "
        "ON file.hash = storage.model_state ORDER BY seed"
    )
    paths = [bench.store_folder / attachment_path(bench, row["model_state"], row["attachment_name"]) for row in rows]
    cut_short(paths[0])
    flip_bit(paths[1], bench.random)
    words = ("worker", "--schema", bench.schema, "--only", "TestPerformance")
    bench.run(*words, code=3)
    done = {row["seed"] for row in bench.query("SELECT seed FROM `__test_performance`")}
    figures.equal("evaluated: the seeds of whole models", done, {row["seed"] for row in rows[2:]})
    errors = bench.query("SELECT error_message FROM `~jobs` WHERE status = 'error'")
    figures.equal("failed: the two damaged ones", len(errors), 2)
    for row in errors:
        said = row["error_message"]
        figures.check("the reason names the damage", "its content does not match its checksum" in said, said[:300])
