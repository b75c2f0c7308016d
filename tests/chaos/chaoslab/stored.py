"""Reads what is stored, without DataJoint or the code under test, and compares it with uninterrupted trainings."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Callable
from typing import Any

import torch
import yaml

from chaoslab import journal
from chaoslab.figures import Figures
from chaoslab.laboratory import Bench


class Reference:
    """The trainings of a bench's sweep in a plain loop, in another process beside the chaos."""

    def __init__(self, bench: Bench, *, seeds: list[int] | None = None):
        sweep = yaml.safe_load(bench.sweep_file.read_text())
        sweep_file = bench.folder / "reference.yaml"
        sweep_file.write_text(yaml.safe_dump({**sweep, "seeds": seeds or sweep["seeds"]}))
        self.clerk = bench.laboratory.clerk("trainings")
        pretraining = str(bench.folder / "reference_pretraining")
        self.number = self.clerk.send(do="train", sweep=str(sweep_file), pretraining=pretraining)

    def results(self) -> dict[str, str]:
        """Wait for it, and return a digest of the state dict for each training."""
        return dict(self.clerk.answer(self.number))


def read_file(bench: Bench) -> Callable[[str], bytes]:
    """Return a function that reads a stored file by its path below the store's location."""
    if bench.store["protocol"] == "file":
        return lambda path: open(os.path.join(bench.store["location"], path), "rb").read()
    import minio

    client = minio.Minio(
        bench.store["endpoint"], bench.store["access_key"], bench.store["secret_key"], secure=bench.store["secure"]
    )

    def read(path: str) -> bytes:
        answer = client.get_object(bench.store["bucket"], f"{bench.store['location']}/{path}")
        try:
            return answer.read()
        finally:
            answer.close()

    return read


def attachment_path(bench: Bench, content: bytes, name: str) -> str:
    """Return where DataJoint keeps an attachment: two levels of folders, the hash, the file's name."""
    digits = uuid.UUID(bytes=content).hex
    return f"{bench.schema}/{digits[:2]}/{digits[2:4]}/{digits}.{name}"


def stored_models(bench: Bench) -> dict[str, bytes]:
    """Return the stored file of every trained model, by the trainer's comment and the seed."""
    rows = bench.query(
        "SELECT trainer.trainer_comment, storage.seed, storage.model_state, file.attachment_name "
        "FROM `__trained_model__model_storage` AS storage "
        "JOIN trainer USING (trainer_fn, trainer_hash) "
        "JOIN `~external_minio` AS file ON file.hash = storage.model_state"
    )
    read = read_file(bench)
    return {
        f"{row['trainer_comment']}|{row['seed']}": read(
            attachment_path(bench, row["model_state"], row["attachment_name"])
        )
        for row in rows
    }


def digest_of(content: bytes) -> str:
    """Return the digest of a stored state dict."""
    return journal.digest(torch.load(io.BytesIO(content), weights_only=True))


def check_stored_once(
    figures: Figures, bench: Bench, expected: int, reference: Reference | None = None, *, where: str = ""
) -> None:
    """Check rows, inserts, files and reservations, and every byte against the plain loop.

    The inserts are counted by triggers of the server: a row that was deleted and inserted again, or overwritten, would
    show.
    """
    figures.equal("trainings stored" + where, bench.count("__trained_model"), expected)
    figures.equal("state dicts stored" + where, bench.count("__trained_model__model_storage"), expected)
    changes = bench.query("SELECT changed, action, COUNT(*) AS n FROM chaos_audit.changes WHERE place = %s "
                          "GROUP BY changed, action", [bench.schema])  # fmt: skip
    names = {"__trained_model": "model", "__trained_model__model_storage": "state dict"}
    found = {(names[row["changed"]], row["action"]): int(row["n"]) for row in changes}
    tables = ("model", "state dict")
    figures.equal("inserts, updates, deletes, by triggers" + where, found, {(t, "INSERT"): expected for t in tables})
    figures.equal("reservations left" + where, bench.count("~jobs", "status = 'reserved'"), 0)
    figures.equal("error rows" + where, bench.count("~jobs", "status = 'error'"), 0)
    if reference is not None:
        _check_bytes(figures, bench, reference.results(), where)


def _check_bytes(figures: Figures, bench: Bench, expected: dict[str, str], where: str) -> None:
    found = {name: digest_of(content) for name, content in stored_models(bench).items()}
    same = sum(found.get(name) == digest for name, digest in expected.items())
    figures.equal("state dicts with the bytes of an uninterrupted training" + where, same, len(expected))
    written_down = {attempt.digest for attempt in bench.journal.attempts() if attempt.ended}
    figures.equal(
        "stored state dicts that no worker computed to the end" + where, len(set(found.values()) - written_down), 0
    )


def files_in_store(bench: Bench) -> list[str]:
    """Return the files below the schema's folder in a store that is a folder."""
    top = bench.store_folder / bench.schema
    return sorted(str(path.relative_to(bench.store_folder)) for path in top.rglob("*") if path.is_file())


def unreferenced_files(bench: Bench) -> list[str]:
    """Return files of attachments that no row refers to."""
    rows = bench.query("SELECT hash, attachment_name FROM `~external_minio`")
    known: Any = {attachment_path(bench, row["hash"], row["attachment_name"]) for row in rows}
    return [path for path in files_in_store(bench) if path not in known]
