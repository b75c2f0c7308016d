"""The toy experiment of the paper's Figure 2, from the example script, with a short regression."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "toy_dec.py"


@pytest.fixture(scope="module")
def toy():
    spec = importlib.util.spec_from_file_location("toy_dec", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy_dec"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["toy_dec"]


@pytest.fixture(scope="module")
def runs(toy):
    _, _, runs = toy.experiment(seed=0, epochs=3)
    return {(run.method, run.target): run for run in runs}


def test_vanilla_dec_collapses_when_the_gradient_flows_through_the_target(runs):
    distances = runs["DEC", "gradient flows"].distances
    assert distances[0] == pytest.approx(0.283, abs=0.01)
    assert distances[-1] < 0.001


def test_vanilla_dec_flies_apart_with_a_constant_target(runs):
    assert runs["DEC", "constant"].distances[-1] > 0.3


@pytest.mark.parametrize("target", ["gradient flows", "constant"])
def test_december_keeps_the_distance(runs, target):
    assert runs["DECEMber", target].distances == pytest.approx(0.283, abs=0.01)


def test_december_recovers_the_groups(runs):
    run = runs["DECEMber", "gradient flows"]
    assert run.ari > 0.99
    np.testing.assert_allclose(run.centers[run.centers[:, 0].argsort()], [[-0.1, -0.1], [0.1, 0.1]], atol=0.01)


def test_the_script_prints_its_table_and_writes_its_figures(toy, tmp_path, capsys):
    assert toy.main(["--output", str(tmp_path / "figures"), "--epochs", "1", "--steps", "2"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["loss", "target", "distance", "at", "start", "at", "the", "end", "ARI"]
    assert [line.split()[0] for line in out[1:5]] == ["DEC", "DEC", "DECEMber", "DECEMber"]
    for name in ("toy_dec.png", "toy_dec.svg", "toy_dec.pdf"):
        assert (tmp_path / "figures" / name).stat().st_size > 10_000
