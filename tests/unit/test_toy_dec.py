"""The toy experiment of the paper's Figure 2, from the example script, with a short regression."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow(1.5)

SCRIPT = Path(__file__).parents[2] / "examples" / "toy_dec.py"


@pytest.fixture(scope="module")
def toy():
    spec = importlib.util.spec_from_file_location("toy_dec", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy_dec"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["toy_dec"]


@pytest.fixture(scope="module", params=["first", "camera-ready"])
def runs(toy, request):
    version = toy.VERSIONS[request.param]
    _, _, runs = toy.experiment(dataclasses.replace(version, epochs=3) if request.param == "first" else version, seed=0)
    return {(run.method, run.target): run for run in runs}


def test_the_camera_ready_version_is_the_papers(toy):
    version = toy.VERSIONS["camera-ready"]
    assert (version.sizes, version.n_stimuli, version.epochs, version.snr) == ((700, 300), 1100, 30, 2.0)
    assert version.joint
    assert version.steps * version.batch_size == 30 * version.n_stimuli
    weights, _ = toy.planted_weights(version, 0)
    generator = toy.torch.Generator().manual_seed(0)
    stimuli, responses = toy.record(version, weights, generator)
    signal = stimuli @ weights.T
    assert float(signal.var() / (responses - signal).var()) == pytest.approx(2, rel=0.01)


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


def test_with_the_squared_error_the_weights_stay_at_what_the_responses_say(toy):
    """The clustering loss alone draws them to the centres."""
    version = dataclasses.replace(toy.VERSIONS["camera-ready"], epochs=3)
    spread = {}
    for joint in (False, True):
        start, _, runs = toy.experiment(dataclasses.replace(version, joint=joint), seed=0)
        spread[joint] = np.linalg.norm(runs[2].weights - start.numpy())
    assert spread[True] < spread[False]


@pytest.mark.parametrize(("version", "name"), [("first", "toy_dec"), ("camera-ready", "toy_dec_camera-ready")])
def test_the_script_prints_its_table_and_writes_its_figures(toy, version, name, tmp_path, capsys):
    arguments = ["--version", version, "--output", str(tmp_path / "figures"), "--epochs", "1", "--steps", "2"]
    assert toy.main(arguments) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["loss", "target", "distance", "at", "start", "at", "the", "end", "ARI"]
    assert [line.split()[0] for line in out[1:5]] == ["DEC", "DEC", "DECEMber", "DECEMber"]
    for suffix in ("png", "svg", "pdf"):
        assert (tmp_path / "figures" / f"{name}.{suffix}").stat().st_size > 10_000
