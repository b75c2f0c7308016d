"""Programs that stay, because starting Python with torch costs seconds: one registers sweeps, one trains undisturbed.

``python -m chaoslab.clerk`` reads a request in JSON from each line of its input and answers each with a line.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Clerk:
    """Such a program, as the scenarios use it.

    Parameters
    ----------
    folder
        Where it works; its log is there.
    environment
        Of the program.
    start
        Starts a process, as ``subprocess.Popen``.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        *,
        start: Callable[..., subprocess.Popen] = subprocess.Popen,
    ):
        self.log = folder / "clerk.log"
        with self.log.open("ab") as log:
            self.process = start(
                [sys.executable, "-m", "chaoslab.clerk"],
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._sending, self._reading = threading.Lock(), threading.Lock()
        self._n_sent = 0
        self._answers: list[dict[str, Any]] = []

    def send(self, **request: Any) -> int:
        """Ask for something; return its number. Requests are done one after the other."""
        assert self.process.stdin is not None
        with self._sending:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            self._n_sent += 1
            return self._n_sent - 1

    def answer(self, number: int) -> Any:
        """Wait for an answer.

        Raises
        ------
        RuntimeError
            If the request failed.
        """
        assert self.process.stdout is not None
        with self._reading:
            while len(self._answers) <= number:
                line = self.process.stdout.readline()
                if not line:
                    raise RuntimeError(f"the clerk has ended: {self.log.read_text()[-3000:]}")
                self._answers.append(json.loads(line))
        found = self._answers[number]
        if "error" in found:
            raise RuntimeError(f"{found['error']}{self.log.read_text()[-3000:]}")
        return found["answer"]

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


# ---- in the program


def register(schema: str, sweep: str, stores: dict[str, Any]) -> None:
    """Make the tables, enter the database user as a lab does once, and run ``december register``."""
    import datajoint as dj

    from december_plugin.cli import main as december
    from december_plugin.schemas.lab import open_lab

    dj.config["stores"] = stores
    lab = open_lab(schema=schema, create=True)
    user = {"fabrikant_name": "chaos", "email": "", "affiliation": "", "dj_username": "december"}
    lab.nnfabrik.Fabrikant.insert1(user, skip_duplicates=True)
    code = december(["register", sweep, "--schema", schema])
    if code != 0:
        raise RuntimeError(f"`december register` ended with {code}")


def train(sweep: str, pretraining: str) -> dict[str, str]:
    """Run the trainings of a sweep in a plain loop, never interrupted; return a digest of each state dict."""
    from chaoslab.journal import digest
    from december_plugin.sweeps.parse import load_sweep  # first: it makes nnfabrik importable

    from nnfabrik.builder import get_all_parts  # isort: skip

    os.environ["DECEMBER_PRETRAINING"] = pretraining
    found = load_sweep(sweep)
    results = {}
    (dataset,), (model,) = found.datasets, found.models
    for trainer in found.trainers:
        for seed in found.seeds:
            names = {"dataset_fn": dataset.fn, "model_fn": model.fn, "trainer_fn": trainer.fn}
            configs = {"dataset_config": dataset.config, "model_config": model.config, "trainer_config": trainer.config}
            loaders, network, trainer_function = get_all_parts(**names, **copy.deepcopy(configs), seed=seed)
            _, _, state_dict = trainer_function(model=network, dataloaders=loaders, seed=seed)
            results[f"{trainer.comment}|{seed}"] = digest(state_dict)
    return results


def main() -> None:
    """Answer requests until the input ends."""
    what = {"register": register, "train": train}
    answers = sys.stdout
    for line in sys.stdin:
        request = json.loads(line)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                answer = {"answer": what[request.pop("do")](**request)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
