"""docs/you-already-have-trained-models.md: its commands and its code run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from december_plugin.cli import main
from helpers import pages
from helpers.readouts import CHANNELS, build

ROOT = Path(__file__).parents[3]
NAME = "docs/you-already-have-trained-models.md"
PAGE = pages.text_of(NAME)
COMMANDS = pages.claim((NAME, "README.md", "docs/tutorials/trained-models.md"), "bash", starting="december study")
PYTHON = pages.claim(NAME, "python")
N = 30
QUICK = ["--methods", "kmeans", "--null-draws", "1", "--jobs", "1", "--no-tsne"]


class Model(nn.Module):
    """A convolution as core, and a Gaussian readout of one session."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Conv2d(1, CHANNELS, 3)
        self.readout = nn.ModuleDict({"1-1-1": build("full Gaussian", N)})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    tuning = 6 * rng.normal(size=(3, 4))[np.arange(N) % 3] + rng.normal(size=(N, 4))
    for number in (1, 2, 3):
        vectors = tuning @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
        np.save(tmp_path / f"seed{number}.npy", vectors)
        np.save(tmp_path / f"sigma{number}.npy", np.eye(4))
        features = torch.tensor(vectors.T[None, :, None, :])
        torch.save({"readout.1-1-1._features": features}, tmp_path / f"seed{number}.pth")
    units = pd.DataFrame({"data_key": "1-1-1", "unit_id": np.arange(N) * 2})
    units.to_csv(tmp_path / "units.csv", index=False)
    units.assign(type=[f"type {at % 3}" for at in range(N)]).to_csv(tmp_path / "labels.csv", index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        words = [word.replace("3-12", "3-4").replace("2-6", "2-3") for word in command.words[1:]]
        assert main([*words, *QUICK]) == 0, command
    assert "Agreement with known types" in capsys.readouterr().out


def test_code(folder: Path) -> None:
    torch.manual_seed(0)
    stimuli = np.random.default_rng(0).normal(size=(20, 1, 6, 7))
    namespace: dict[str, Any] = {"models": [Model().double().eval() for _ in range(2)], "loaders": stimuli}
    for block in PYTHON:
        code = block.text.replace("range(3, 7)", "range(3, 5)").replace("n_jobs=-1,", "null_draws=1, tsne=False,")
        replace(block, text=code.replace('methods="kmeans"', 'methods="kmeans", null_draws=0')).run(namespace)
    assert (folder / "answer.html").exists()
    assert (folder / "sigma2.npy").exists()
    assert namespace["study"].settings.vectors_in_words == "directions of functional embeddings"


def test_frames_that_are_named_exist() -> None:
    from december_plugin.answer.data import StudyData

    (sentence,) = re.findall(r"Other frames are (.*?)\n\n", PAGE, flags=re.DOTALL)
    named = set(re.findall(r"`(\w+)`", sentence)) - {"sessions", "unit_ids", "types", "test_correlations"}
    assert named <= set(StudyData.__dataclass_fields__)


def test_links_exist() -> None:
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    for path in re.findall(r"`(examples/[\w./]+)`", PAGE):
        assert (ROOT / path).exists(), path
