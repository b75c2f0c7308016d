"""How long planned trainings take, judged by finished ones."""

from __future__ import annotations

import pytest

from december_plugin.cli.views.outlook import outlook_lines
from december_plugin.sweeps.estimate import DeviceEstimate, SweepEstimate
from december_plugin.sweeps.following_jobs import Following
from december_plugin.sweeps.training_time import Device, Estimate, Finished, Training, estimate, most_epochs

DATA, OTHER_DATA = ("loaders", "a"), ("loaders", "b")
MODEL = ("model", "m")


def training(trainer: str, *, epochs: int | None, data: tuple[str, str] = DATA) -> Training:
    return Training(data, MODEL, ("trainer", trainer), epochs)


def test_the_same_data_model_and_trainer_count_first() -> None:
    finished = [
        Finished(training("x", epochs=10), 100.0, 5),
        Finished(training("x", epochs=10), 140.0, 7),
        Finished(training("y", epochs=10), 9000.0, 10),
    ]
    found = estimate([training("x", epochs=10)] * 3, finished)
    (basis,) = found.bases
    assert (basis.level, basis.n_planned, basis.n_finished) == (0, 3, 2)
    assert found.seconds == pytest.approx(3 * 120)
    assert found.most_seconds == pytest.approx(3 * 10 * 240 / 12)  # 20 s per epoch, all 10 epochs


def test_other_trainers_count_by_their_epochs() -> None:
    finished = [Finished(training("x", epochs=10), 100.0, 5), Finished(training("y", epochs=40), 300.0, 15)]
    found = estimate([training("z", epochs=100), training("z", epochs=50)], finished)
    (basis,) = found.bases
    assert (basis.level, basis.n_planned, basis.n_finished) == (1, 2, 2)
    # 400 s in 20 epochs, of 50 that were allowed.
    assert found.most_seconds == pytest.approx(150 * 20)
    assert found.seconds == pytest.approx(150 * 20 * 0.4)


def test_other_settings_of_the_same_functions_are_the_last_resort() -> None:
    finished = [Finished(training("x", epochs=10), 50.0, 10)]
    planned = [training("x", epochs=20, data=OTHER_DATA), Training(("others", "c"), MODEL, ("trainer", "x"), 20)]
    found = estimate(planned, finished)
    assert [(basis.level, basis.n_planned) for basis in found.bases] == [(2, 1)]
    assert found.n_unknown == 1
    assert found.seconds == pytest.approx(100)


def test_trainers_without_known_epochs_take_the_mean_time() -> None:
    finished = [Finished(training("x", epochs=None), 50.0, None), Finished(training("y", epochs=None), 70.0, 3)]
    found = estimate([training("z", epochs=9)], finished)
    assert (found.seconds, found.most_seconds) == (60, 60)
    assert estimate([], finished) == Estimate([], 0)
    assert estimate([training("z", epochs=9)], []).n_unknown == 1


@pytest.mark.parametrize(
    ("name", "config", "epochs"),
    [
        ("december_plugin.trainers.baseline_trainer", {}, 200),
        ("december_plugin.trainers.december_trainer", {"max_iter": 7}, 7),
        (
            "december_plugin.training.trainers.baseline_trainer",
            {"pretrain_epochs": 5, "stop_after_pretraining": True},
            5,
        ),
        ("lab.december_trainer", {"max_iter": 7}, None),
        ("december_plugin.trainers.other", {"max_iter": 7}, None),
    ],
)
def test_epochs_that_a_trainer_is_allowed(name: str, config: dict, epochs: int | None) -> None:
    assert most_epochs(name, config) == epochs


def test_what_is_printed() -> None:
    finished = [Finished(training("x", epochs=10), 3600.0, 10)]
    planned = [training("x", epochs=10), training("y", epochs=20), Training(("others", "c"), MODEL, ("t", "x"), 20)]
    on_gpu = DeviceEstimate(Device(is_gpu=True), estimate(planned, finished), 1)
    found = SweepEstimate(10, 2, 7, (on_gpu,), n_interrupted=4)
    assert list(outlook_lines(found, schema="lab")) == [
        "  new                    2",
        "  planned already        1",
        "  trained already        7",
        "To train 2 of the 3: about 3.0 h on one GPU; 3.0 h if none stops early. Based on",
        "  1 finished with the same dataset, model and trainer, for 1 of them: 60 min each on average.",
        "  1 finished with the same dataset and model, for 1 of them: 2.0 h each on average, by time per epoch.",
        "  nothing for the other 1: no similar training has finished.",
        "  4 finished trainings are not considered, because they were interrupted.",
        "Trainings that reused a shared pretraining count with the time that they really took.",
    ]
    nothing = SweepEstimate(4, 4, 0, (), n_interrupted=0)
    assert list(outlook_lines(nothing, schema="lab"))[-1] == (
        "How long the 4 take is unknown: no worker has finished a similar training in the schema 'lab' yet."
    )
    done = SweepEstimate(4, 0, 4, (), n_interrupted=0)
    assert list(outlook_lines(done, schema="lab"))[-1] == "Nothing is left to train."


def test_each_kind_of_device_has_its_own_time() -> None:
    planned = [training("x", epochs=10)] * 6
    shared, alone = Device(True, "NVIDIA L4", 2), Device(True, "NVIDIA H100 80GB HBM3")
    on_shared = DeviceEstimate(shared, estimate(planned, [Finished(training("x", epochs=10), 7200.0, 10)] * 3), 3)
    on_alone = DeviceEstimate(alone, estimate(planned, [Finished(training("x", epochs=10), 1200.0, 5)]), 1)
    assert (on_shared.seconds, on_alone.seconds, on_alone.most_seconds) == (6 * 3600, 6 * 1200, 6 * 2400)
    lines = list(outlook_lines(SweepEstimate(6, 6, 0, (on_shared, on_alone), n_interrupted=0), schema="lab"))
    assert lines[3:] == [
        "To train 6: about 6.0 h on one NVIDIA L4 with 2 workers; 6.0 h if none stops early. Based on",
        "  3 finished with the same dataset, model and trainer, for 6 of them: 2.0 h each on average.",
        "  2 at a time share the GPU and take that long together.",
        "To train 6: about 2.0 h on one NVIDIA H100 80GB HBM3; 4.0 h if none stops early. Based on",
        "  1 finished with the same dataset, model and trainer, for 6 of them: 20 min each on average.",
        "Trainings that reused a shared pretraining count with the time that they really took.",
    ]


def test_what_follows_the_trainings_is_counted_or_said_not_to_be() -> None:
    following = (
        Following("clusterings", 12, 0, 20.0),
        Following("evaluations", 60, 12, 130.0),
        Following("the null", 42, 42, 0.0),
    )
    found = SweepEstimate(4, 0, 4, (), n_interrupted=0, following=following)
    assert list(outlook_lines(found, schema="lab"))[-1] == (
        "After the trainings, with one worker: clusterings about 20 s (12 jobs); evaluations about 2 min (60 jobs, "
        "12 of them not estimated yet); the null is not estimated yet (42 jobs)."
    )
    done = SweepEstimate(4, 0, 4, (), 0, following=(Following("the null", 0, 0, 0.0),))
    assert list(outlook_lines(done, schema="lab"))[-1] == "Nothing is left to train."
