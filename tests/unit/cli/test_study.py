"""``december study``: files of models to a report, without a database."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from december_plugin.answer.progress import ProgressLine
from december_plugin.cli import main
from december_plugin.errors import ExitCode


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    tuning = 6 * rng.normal(size=(3, 4))[np.arange(45) % 3] + rng.normal(size=(45, 4))
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", tuning @ np.linalg.qr(rng.normal(size=(4, 4)))[0])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_files_to_a_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--n-clusters", "2-4", "--methods", "kmeans", "--null-draws", "2", "--jobs", "1", "--no-tsne"]
    assert main(["study", "a.npy", "b.npy", *words, "--report", "answer.html"]) == 0
    said = capsys.readouterr().out
    assert "2 models of 45 neurons, compared by readout vectors" in said
    assert "Written: answer.html" in said
    page = (folder / "answer.html").read_text()
    assert "december study a.npy b.npy" in page or "Command" in page


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["a.npy", "--n-clusters", "3-"], ExitCode.USAGE, "'3-' is not a list of numbers of clusters"),
        (["a.npy", "--n-clusters", "5-3"], ExitCode.USAGE, "'5-3' goes down"),
        (["a.npy"], ExitCode.USAGE, "--n-clusters"),
        (["c.npy", "--n-clusters", "3"], ExitCode.ERROR, "the model 'c': there is no file c.npy"),
        (["a.npy", "--n-clusters", "3", "--methods", "keans"], ExitCode.ERROR, "Did you mean 'kmeans'?"),
        (["a.npy", "--n-clusters", "3", "-o", "a.npy"], ExitCode.ERROR, "a.npy exists and is not a december report"),
    ],
)
def test_mistakes(folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str) -> None:
    assert main(["study", *words]) == code
    assert message in capsys.readouterr().err


def test_progress_line() -> None:
    stream = io.StringIO()
    line = ProgressLine(4, stream)
    line("k-means, K = 3", 4)
    line.close()
    assert stream.getvalue().startswith("\r100%  k-means, K = 3, about 0 s left")
    assert stream.getvalue().endswith("\r")
