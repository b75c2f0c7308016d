"""`december run`: from a sweep to its report, interrupted and gone on with."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from december_plugin.cli import main
from december_plugin.simulate import write_recording
from helpers.pool_lab import PoolLab

pytestmark = pytest.mark.slow(10)

SWEEP = """\
seeds: [1, 2]
datasets:
  - {{fn: december_plugin.datasets.static_loaders, config: {{paths: {paths}, batch_size: 20}}}}
models:
  - fn: december_plugin.models.stacked_core_gaussian_readout
    config: {{hidden_channels: 4, input_kern: 3, hidden_kern: 3, layers: 1, pad_input: true, gauss_type: isotropic}}
trainers:
  - fn: december_plugin.trainers.baseline_trainer
    config: {{pretrain_epochs: 0, device: cpu, max_iter: {epochs}, patience: {epochs}}}
clusterings:
  - {{method: kmeans, n_clusters: 2}}
"""


@pytest.fixture
def pool(
    database: Any, schema_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> Iterator[PoolLab]:
    monkeypatch.setenv("DECEMBER_PRETRAINING", str(tmp_path / "pretraining"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    sizes = {"n_neurons": 12, "n_train": 40, "n_validation": 10, "n_test": 4, "n_repeats": 3}
    recording = write_recording(tmp_path / "static1-1-1-simulated", seed=1, **sizes)
    pool = PoolLab(schema_name, tmp_path, [str(recording)], capsys)
    (tmp_path / "sweep.yaml").write_text(SWEEP.format(paths=pool.recordings, epochs=200))
    yield pool
    pool.end_all()


def words(pool: PoolLab, *more: str) -> list[str]:
    report = str(pool.folder / "types.html")
    return ["run", str(pool.folder / "sweep.yaml"), "--cpu", "1", "--idle-exit", "2", "-o", report, "--no-tsne", *more]


def test_from_a_sweep_to_its_report(pool: PoolLab) -> None:
    process = pool.start_command(*words(pool, "--checkpoint-every", "1", "--lease", "10"))
    pool.worker_in_training(epochs=3)
    process.send_signal(signal.SIGINT)
    assert pool.ended(process) == 130, pool.output
    assert "[1/3] register" in pool.output
    assert "TrainingPlan      2 new     0 existing" in pool.output
    assert pool.output.rstrip().endswith("Stopped before the report. Run the same command again to continue.")
    assert not (pool.folder / "types.html").exists()
    # The same command again: nothing is new, the training goes on, and the report is written.
    pool.capsys.readouterr()
    assert main([*words(pool), "--schema", pool.schema, "--nnfabrik", pool.schema]) == 0
    said = pool.capsys.readouterr()
    assert "TrainingPlan      0 new     2 existing" in said.out
    assert "continued after epoch" in said.err
    assert f"Written: {pool.folder / 'types.html'}" in said.out
    assert "Not in the report, because not done yet" not in said.out
    assert "<html" in (pool.folder / "types.html").read_text()[:200]


def test_mistakes_are_found_before_anything_is_done(pool: PoolLab) -> None:
    (pool.folder / "types.html").write_text("my own page")
    assert main([*words(pool), "--schema", pool.schema]) == 1
    assert "types.html" in pool.capsys.readouterr().err
    (pool.folder / "types.html").unlink()
    assert main([*words(pool, "--only", "TrainedModels"), "--schema", pool.schema]) == 1
    assert "there is no table 'TrainedModels'. Did you mean 'TrainedModel'?" in pool.capsys.readouterr().err
    assert main([*words(pool, "--types", "genetics"), "--schema", pool.schema]) == 1
    assert "there are no known types named 'genetics'. Known: none." in pool.capsys.readouterr().err
    assert pool.query("SELECT COUNT(*) FROM `{}`.training_plan") == [(0,)]


def test_without_a_report_it_says_why(pool: PoolLab) -> None:
    (pool.folder / "static1-1-1-simulated").rename(pool.folder / "static2-2-2-moved")
    assert main([*words(pool), "--schema", pool.schema, "--nnfabrik", pool.schema]) == 3
    assert "There is no report, because jobs failed: there is nothing to report" in pool.capsys.readouterr().err
