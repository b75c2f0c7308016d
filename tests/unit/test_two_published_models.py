"""The example that compares two published models, on small ones of the same kind that are made here."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from december_plugin.models.gaussian import stacked_core_gaussian_readout

SCRIPT = Path(__file__).parents[2] / "examples" / "two_published_models.py"
SMALL = {"hidden_channels": 4, "input_kern": 5, "hidden_kern": 3}
N = 40


@pytest.fixture
def example() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("two_published_models", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["two_published_models"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["two_published_models"]


def test_it_compares_models_of_older_weights(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = np.random.default_rng(0).normal(size=(N, 2))
    info = {"1-1-1": {"input_dimensions": [1, 1, 36, 64], "output_dimension": N, "cell_motor_coordinates": grid}}
    settings = {name: {**own, **SMALL} for name, own in example.SETTINGS.items()}
    monkeypatch.setattr(example, "SETTINGS", settings)
    paths = []
    for name, own in settings.items():
        weights = stacked_core_gaussian_readout(None, 1, data_info=info, **own).state_dict()
        # As they were published: without the biases that came later.
        older = {key: value for key, value in weights.items() if not ("ds_conv" in key and key.endswith("bias"))}
        assert len(older) < len(weights)
        older["readout.1-1-1._features"] = torch.randn(1, 4, 1, N, generator=torch.Generator().manual_seed(0))
        paths.append(tmp_path / f"{name}.pth")
        torch.save(older, paths[-1])
    words = ["--n-clusters", "2", "3", "4", "--null-draws", "2", "--probes", "20", "--jobs", "1"]
    example.main([*map(str, paths), "--output", str(tmp_path / "answer"), *words])
    said = capsys.readouterr().out
    assert "readout vectors: correlation between the models" in said
    assert (tmp_path / "answer" / "directions-of-functional-embeddings.html").exists()
    page = (tmp_path / "answer" / "readout-vectors.html").read_text()
    assert "nonlinear core" in page[: page.index("<script>")]
