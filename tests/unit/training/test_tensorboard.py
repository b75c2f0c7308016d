"""Curves of trainings as TensorBoard's event files."""

from __future__ import annotations

import logging
import math
import sys

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch.utils.tensorboard import SummaryWriter

from december_plugin.errors import MissingExtraError
from december_plugin.training import tensorboard
from december_plugin.training.monitor import Monitor, Progress
from december_plugin.training.tensorboard import TensorBoardMonitor, check_tensorboard, run_name
from helpers.interrupted import Interrupted, Recorder, train

DECEMBER = {"max_iter": 6, "patience": 9, "pretrain_epochs": 2, "n_clusters": 3}

pytestmark = pytest.mark.usefixtures("own_pretrainings")


def scalars(folder):
    """Return every scalar in all event files of a folder, in the order of the files: tag to (step, value)."""
    found = {}
    for path in sorted(folder.glob("events*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    found.setdefault(value.tag, []).append((event.step, value.tensor.float_val[0]))
    return found


def as_float32(values):
    return [pytest.approx(value, rel=1e-6) for value in values]


def test_the_curves_are_those_of_the_training_and_change_nothing(tmp_path):
    expected = train(**DECEMBER, share_pretraining=False)
    recorder = Recorder(record=False)
    with TensorBoardMonitor(tmp_path / "runs" / "first", inner=recorder, about={"seed": 1}) as monitor:
        assert train(monitor, **DECEMBER, share_pretraining=False) == expected
    found = scalars(tmp_path / "runs" / "first")
    curves = recorder.progress[-1].curves
    assert set(found) == set(tensorboard.TAGS.values())
    assert found["loss/training"] == list(zip(range(1, 7), as_float32(curves["train_loss"]), strict=True))
    assert [step for step, _ in found["correlation/validation"]] == [1, 2, 3, 4, 5, 6]
    # There are no clusters during the pretraining: NaN is left out.
    assert [step for step, _ in found["loss/clustering"]] == [3, 4, 5, 6]
    assert [value for _, value in found["schedule/phase"]] == [0, 0, 1, 1, 1, 1]
    assert len(list((tmp_path / "runs" / "first").iterdir())) == 1


def test_a_training_that_continues_continues_its_curves(tmp_path):
    interrupted = Recorder(stop=3)
    with TensorBoardMonitor(tmp_path, inner=interrupted) as monitor, pytest.raises(Interrupted):
        train(monitor, **DECEMBER, share_pretraining=False)
    before = scalars(tmp_path)["correlation/validation"]
    assert [step for step, _ in before] == [1, 2]  # the interruption came before the third was written
    resumed = Recorder(interrupted.states[2], record=False)
    with TensorBoardMonitor(tmp_path, inner=resumed) as monitor:
        train(monitor, **DECEMBER, share_pretraining=False)
    after = scalars(tmp_path)["correlation/validation"]
    assert [step for step, _ in after] == [1, 2, 3, 4, 5, 6]
    assert after[:2] == before


def test_epochs_of_a_shared_pretraining_are_in_the_curves_of_all_that_took_it_over(tmp_path):
    for n_clusters in (2, 3):
        with TensorBoardMonitor(tmp_path / str(n_clusters)) as monitor:
            train(monitor, **{**DECEMBER, "n_clusters": n_clusters})
    first, second = (scalars(tmp_path / name)["loss/training"] for name in ("2", "3"))
    assert [step for step, _ in second] == [1, 2, 3, 4, 5, 6]
    assert first[:2] == second[:2]


def test_a_folder_that_cannot_be_written_costs_the_curves_alone(tmp_path, caplog):
    expected = train(max_iter=3)
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING), TensorBoardMonitor(tmp_path / "file" / "run") as monitor:
        assert train(monitor, max_iter=3) == expected
    (record,) = caplog.records
    assert record.getMessage() == (
        f"the curves for TensorBoard cannot be written into {tmp_path}/file/run (NotADirectoryError: [Errno 20] Not a "
        f"directory: '{tmp_path}/file/run'); the training continues without them"
    )


def test_a_disk_that_becomes_full_costs_the_rest_of_the_curves(tmp_path, monkeypatch, caplog):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with TensorBoardMonitor(tmp_path) as monitor:
        monitor.after_epoch(Progress(1, 3, 0.1, 1.0, {"epoch": [1], "train_loss": [2.0]}), bytes)
        monkeypatch.setattr(SummaryWriter, "add_scalar", full)
        for n in (2, 3):
            curves = {"epoch": list(range(1, n + 1)), "train_loss": [math.pi] * n}
            monitor.after_epoch(Progress(n, 3, 0.1, 1.0, curves), bytes)
    assert len(caplog.records) == 1
    assert scalars(tmp_path) == {"loss/training": [(1, 2.0)]}


def test_the_state_is_that_of_the_inner_monitor(tmp_path):
    assert TensorBoardMonitor(tmp_path, inner=Recorder(b"state")).load() == b"state"
    assert TensorBoardMonitor(tmp_path).load() is None
    assert type(TensorBoardMonitor(tmp_path).inner) is Monitor


def test_names_of_runs_are_readable_and_safe():
    assert run_name("DECEMber trainer, K 20, seed 3", "5f2c91d0") == "DECEMber-trainer-K-20-seed-3-5f2c91d0"
    assert run_name("../etc/p\0asswd", "5f2c91d0") == "etc-p-asswd-5f2c91d0"
    assert run_name(" ", "5f2c91d0") == "5f2c91d0"
    assert len(run_name("x" * 300, "5f2c91d0")) == 109


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setattr(tensorboard.importlib.util, "find_spec", lambda name: None)
    message = "curves for TensorBoard need the package tensorboard, which is not installed. Install it: pip install"
    with pytest.raises(MissingExtraError, match=message):
        check_tensorboard()
    with TensorBoardMonitor(tmp_path) as monitor, pytest.raises(MissingExtraError, match=message):
        train(monitor, max_iter=2)
