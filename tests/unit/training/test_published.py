"""The settings that make a training the published one: each on its own, and all of them by their one name."""

from __future__ import annotations

import itertools
import logging

import numpy as np
import pytest
import torch
from neuralpredictors.training import early_stopping
from torch import nn

from december_plugin.errors import SettingsError
from december_plugin.sweeps.advice import advice
from december_plugin.sweeps.parse import parse_sweep
from december_plugin.sweeps.source import SweepError
from december_plugin.trainers import baseline_trainer, december_trainer
from december_plugin.training import loop
from december_plugin.training.fingerprint import content_digest
from december_plugin.training.objective import ModelLoss
from december_plugin.training.settings import WITHOUT_EFFECT, ClusteringSettings, TrainingSettings, distinguishing
from december_plugin.training.trainers import check_trainer_config, training_settings
from december_plugin.validation.checks import expand_preset
from helpers.interrupted import Interrupted, Recorder, train
from helpers.trainings import BATCH_SIZE, N_TRAIN, N_VALIDATION, make_loaders, make_model

pytestmark = pytest.mark.usefixtures("own_pretrainings")

QUICK = {"max_iter": 5, "pretrain_epochs": 3, "device": "cpu", "lr_init": 0.01, "share_pretraining": False}
PUBLISHED = {"preset": "published", "n_clusters": 3, "strength": 0.5, "pretrain_epochs": 3}


@pytest.fixture
def scored(monkeypatch):
    """Let the validation scores be those of a list, the last one for ever."""

    def set_scores(*scores):
        stream = itertools.chain(scores, itertools.repeat(scores[-1]))
        monkeypatch.setattr(loop, "validation_correlation", lambda *args, **kwargs: next(stream))

    return set_scores


@pytest.fixture
def runs(monkeypatch):
    """Collect the trainings, to look at their optimizers and restored states."""
    found = []
    original = loop.TrainingRun.__init__

    def noted(self, *args, **kwargs):
        original(self, *args, **kwargs)
        found.append(self)

    monkeypatch.setattr(loop.TrainingRun, "__init__", noted)
    return found


def december(**settings):
    return december_trainer(make_model(), make_loaders(), 1, **{**QUICK, "n_clusters": 2, **settings})


def baseline(**settings):
    return baseline_trainer(make_model(), make_loaders(), 1, **{**QUICK, **settings})


# --- after the pretraining ------------------------------------------------------------------------------------


def n_steps(run):
    """Return how many steps the optimizer has made, which its moments remember."""
    return {int(state["step"]) for state in run.optimizer.state.values()}


@pytest.mark.parametrize(("fresh", "epochs"), [(False, 5), (True, 2)])
@pytest.mark.slow(1)
def test_a_fresh_optimizer_forgets_the_pretraining(runs, fresh, epochs):
    december(fresh_optimizer=fresh)
    assert n_steps(runs[0]) == {epochs * N_TRAIN // BATCH_SIZE}


@pytest.mark.parametrize("trainer", [december, baseline])
@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        ({}, 0.01),
        ({"lr_after_pretraining": 0.004}, 0.004),
        ({"fresh_optimizer": True}, 0.01),
        ({"fresh_optimizer": True, "lr_after_pretraining": 0.002}, 0.002),
    ],
)
def test_the_clustering_phase_has_a_learning_rate_of_its_own(trainer, settings, rate):
    rates = trainer(**settings)[1]["curves"]["learning_rate"]
    np.testing.assert_array_equal(rates, [0.01] * 3 + [rate] * 2)


def test_divergence_names_the_learning_rate_of_the_phase():
    message = r"in epoch 4: .*Lower lr_after_pretraining \(now 0\.004\) or strength \(now 1e\+300\), and look"
    with pytest.warns(UserWarning, match="so strong"), pytest.raises(loop.TrainingDivergedError, match=message):
        december(strength=1e300, lr_after_pretraining=0.004)


# --- what is restored -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("best_epoch_from", "scores", "best"),
    [
        ("training", [0.9, 0.8, 0.7, 0.2, 0.1], (0.2, 4)),
        ("pretraining_end", [0.9, 0.8, 0.7, 0.2, 0.1], (0.7, 3)),
        ("first_epoch", [0.9, 0.8, 0.7, 0.2, 0.1], (0.9, 1)),
        ("pretraining_end", [0.1, 0.2, 0.3, 0.4, 0.1], (0.4, 4)),
        ("first_epoch", [0.1, 0.2, 0.3, 0.4, 0.1], (0.4, 4)),
    ],
)
def test_the_earliest_weights_that_may_be_restored(scored, best_epoch_from, scores, best):
    weights = {}

    def keep(*, epoch, model, **_):
        weights[epoch] = {name: value.clone() for name, value in model.state_dict().items()}

    scored(*scores)
    score, output, state = december(best_epoch_from=best_epoch_from, cb=keep)
    assert (score, output["best_epoch"]) == best
    assert all(torch.equal(value, weights[best[1]][name]) for name, value in state.items())
    assert output["mixture"] is not None


def test_without_a_pretraining_the_initial_weights_may_be_restored(scored):
    scored(0.5, 0.4)
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = {**QUICK, "pretrain_epochs": 0, "max_iter": 2, "best_epoch_from": "pretraining_end"}
    score, output, state = baseline_trainer(model, make_loaders(), 1, **settings)
    assert (score, output["best_epoch"]) == (0.5, 0)
    assert all(torch.equal(value, state[name]) for name, value in before.items())


def test_the_last_mixture_may_stay(scored):
    def centers(**settings):
        return december(**settings)[1]["mixture"]["centers"]

    scored(0.1, 0.1, 0.1, 0.9, 0.2)
    restored = centers()
    scored(0.1, 0.1, 0.1, 0.9, 0.2)
    stayed = centers(restore_mixture=False)
    scored(0.1, 0.1, 0.1, 0.2, 0.9)
    last = centers()
    np.testing.assert_array_equal(stayed, last)
    assert not np.array_equal(restored, last)


# --- learning rate and early stopping -------------------------------------------------------------------------

CURVES = {
    "flat": [0.1],
    "rising": [0.01 * epoch for epoch in range(100)],
    "a step": [0.1] * 12 + [0.5],
    "better right after a return": [0.1, 0.3] + [0.2] * 5 + [0.4] + [0.3],
    "slowly": [0.1 + 0.02 * (epoch // 4) for epoch in range(100)],
}


@pytest.mark.parametrize("curve", CURVES)
def test_the_plateau_decay_is_that_of_neuralpredictors_loop(scored, curve):
    """Epochs and learning rates are those of its ``early_stopping`` with torch's scheduler, after a restart."""
    settings = {"patience": 5, "tolerance": 1e-6, "max_iter": 40, "lr_decay_steps": 4}
    scored(-1.0, *CURVES[curve])
    output = baseline(
        **settings, pretrain_epochs=0, lr_init=0.009, lr_decay="plateau", best_epoch_from="pretraining_end"
    )[1]
    model = nn.Linear(1, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.009)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=0.3, patience=5, threshold=1e-6, min_lr=1e-4, threshold_mode="abs"
    )
    given = itertools.chain([-1.0], CURVES[curve], itertools.repeat(CURVES[curve][-1]))
    latest = [next(given)]  # it asks for the same score again when it returns to the best weights
    epochs = early_stopping(
        model, lambda _: latest[0], interval=1, maximize=True, restore_best=True, scheduler=scheduler, **settings
    )
    rates = []
    for _ in epochs:
        rates.append(optimizer.param_groups[0]["lr"])
        latest[0] = next(given)
    np.testing.assert_allclose(output["curves"]["learning_rate"], rates, rtol=1e-12)


def test_the_delay_of_the_plateau_decay(scored):
    def falls(lr_decay):
        scored(0.1, 0.2)
        rates = baseline(lr_decay=lr_decay, pretrain_epochs=0, max_iter=40, lr_decay_steps=4)[1]["curves"]
        return [epoch for epoch, (a, b) in enumerate(itertools.pairwise(rates["learning_rate"]), 1) if b < a]

    assert falls("restore") == [7, 12, 17]
    assert falls("plateau") == [8, 14, 20]


def test_a_pretraining_with_early_stopping_may_end_at_its_best_epoch(scored):
    settings = {"pretrain_early_stopping": True, "patience": 1, "lr_decay_steps": 2, "pretrain_epochs": 8}
    scored(0.1, 0.5, 0.3, 0.2, 0.05, 0.04)
    output = december(**settings, max_iter=9)[1]
    assert output["curves"]["phase"].tolist() == [0, 0, 0, 0, 1, 1, 1]
    np.testing.assert_allclose(output["curves"]["learning_rate"], [0.01] * 3 + [0.003] * 3 + [0.0009])
    scored(0.1, 0.5, 0.3, 0.2)
    score, output, _ = baseline(**settings, stop_after_pretraining=True, max_iter=9)
    assert (score, output["best_epoch"], output["n_epochs"]) == (0.5, 2, 4)
    assert output["stopped_by"] == "end of pretraining"


def test_the_decay_of_the_pretraining_is_its_own(scored):
    scored(0.5, 0.3, 0.2, 0.1)
    settings = {"pretrain_lr_decay_steps": 3, "pretrain_lr_decay_factor": 0.5, "lr_decay_steps": 1, "patience": 1}
    curves = december(pretrain_early_stopping=True, **settings, pretrain_epochs=4, max_iter=9)[1]["curves"]
    np.testing.assert_allclose(curves["learning_rate"], [0.01, 0.01, 0.005, 0.0025, 0.0025, 0.0025])


# --- the loss -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("trials", "count"), [("train", N_TRAIN), ("all", N_TRAIN + N_VALIDATION)])
def test_trials_that_count(trials, count):
    model, loaders = make_model().eval(), make_loaders()
    batch = next(iter(loaders["train"]["one"]))
    prediction = model(batch.images, data_key="one")
    poisson = (prediction - batch.responses * torch.log(prediction + 1e-12)).sum()
    expected = (count / BATCH_SIZE) ** 0.5 * poisson + model.core.regularizer() + model.readout.regularizer("one")
    loss = ModelLoss(model, loaders["train"], scale_loss=True, device=torch.device("cpu"), trials=trials)
    torch.testing.assert_close(loss("one", batch), expected)


# --- digests, sharing and resumption --------------------------------------------------------------------------


def test_settings_at_their_defaults_have_the_digest_that_they_had_before_there_were_more_of_them():
    settings = distinguishing(TrainingSettings(max_iter=5, pretrain_epochs=2))
    described = {name: settings[name] for name in settings if name not in WITHOUT_EFFECT}
    described["clustering"] = distinguishing(ClusteringSettings(n_clusters=3))
    assert content_digest(described) == "e62929f74187c76c2e1c214b731c1d2258da2fff68b7dc3912e396ce2e819286"
    assert TrainingSettings(pretrain_epochs=2).pretraining() == {"epochs": 2, "lr_init": 0.009, "scale_loss": True}


OTHERS = {
    "lr_after_pretraining": 0.02,
    "fresh_optimizer": True,
    "lr_decay": "plateau",
    "scale_loss_trials": "all",
    "pretrain_early_stopping": True,
    "pretrain_lr_decay_steps": 2,
    "pretrain_lr_decay_factor": 0.5,
    "best_epoch_from": "pretraining_end",
    "precision": "bf16",
    "kmeans_seeds": "joint",
    "mixture_n_init": 2,
    "start_scales": "unclamped",
    "scale_centers": "old",
    "empty_clusters": "reseed",
    "restore_mixture": False,
    "space": "functional",
    "normalize": "l2",
    "covariance_refresh": "never",
}
IN_THE_PRETRAINING = ["scale_loss_trials", "pretrain_early_stopping", "precision"]


def test_every_setting_that_was_added_is_tried():
    added = {
        each.name
        for kind in (TrainingSettings, ClusteringSettings)
        for each in kind.__dataclass_fields__.values()
        if each.metadata.get("added")
    }
    assert added == set(OTHERS)


@pytest.fixture(scope="module")
def states():
    recorder = Recorder()
    train(recorder, n_clusters=3, pretrain_epochs=2, max_iter=4, share_pretraining=False)
    return recorder.states


@pytest.mark.parametrize("name", OTHERS)
def test_the_state_of_a_training_with_another_setting_is_refused(states, name, caplog):
    settings = {name: OTHERS[name], "n_clusters": 3, "pretrain_epochs": 2, "max_iter": 4}
    recorder = Recorder(states[3], stop=1)
    with pytest.raises(Interrupted):
        train(recorder, **settings, share_pretraining=False)
    assert "belongs to another training (different: settings)" in caplog.text


@pytest.mark.parametrize("name", OTHERS)
def test_a_pretraining_is_shared_by_those_that_go_through_the_same_one(name):
    def first_epoch(**settings):
        recorder = Recorder(record=False)
        train(recorder, n_clusters=3, pretrain_epochs=2, max_iter=3, **settings)
        return recorder.progress[0].epoch

    assert first_epoch() == 1
    assert first_epoch(**{name: OTHERS[name]}) == (1 if name in IN_THE_PRETRAINING else 3)


@pytest.mark.parametrize(
    "settings",
    [
        {**PUBLISHED, "max_iter": 9, "patience": 1, "tolerance": 0.02, "lr_after_pretraining": 0.02},
        {**PUBLISHED, "max_iter": 7, "patience": 1, "lr_decay_steps": 2, "tolerance": 0.5, "pretrain_epochs": 6},
        {"n_clusters": 3, "pretrain_epochs": 3, "max_iter": 6, "patience": 1, "best_epoch_from": "first_epoch"},
    ],
    ids=["published", "pretraining that ends early", "all epochs"],
)
@pytest.mark.slow(2)
def test_the_bytes_are_those_of_an_uninterrupted_training_wherever_it_was_interrupted(settings):
    recorder = Recorder()
    expected = train(recorder, **settings, share_pretraining=False)
    for state in recorder.states.values():
        assert train(Recorder(state, record=False), **settings, share_pretraining=False) == expected
    assert train(**settings) == expected
    taken_over = Recorder(record=False)
    assert train(taken_over, **settings) == expected
    assert taken_over.progress[0].epoch > 1


# --- the preset -----------------------------------------------------------------------------------------------


def test_the_preset_is_its_values():
    _, output, _ = december(preset="published", strength=2.0, pretrain_epochs=2)
    settings = output["settings"]
    assert "preset" not in settings
    expected = {
        "lr_decay": "plateau",
        "lr_decay_steps": 4,
        "scale_loss_trials": "all",
        "pretrain_early_stopping": True,
        "fresh_optimizer": True,
        "best_epoch_from": "pretraining_end",
        "kmeans_seeds": "joint",
        "start_scales": "unclamped",
        "scale_centers": "old",
        "empty_clusters": "reseed",
        "restore_mixture": False,
        "scale_bounds": [1e-4, 1e4],
        # given beside it
        "pretrain_epochs": 2,
        "lr_init": 0.01,
        "max_iter": 5,
    }
    assert {name: settings[name] for name in expected} == expected
    by_hand = {name: value for name, value in settings.items() if name != "stop_after_pretraining"}
    again = december_trainer(make_model(), make_loaders(), 1, **by_hand, device="cpu", share_pretraining=False)
    assert all(torch.equal(a, b) for a, b in zip(again[2].values(), december(**by_hand)[2].values(), strict=True))


def test_the_method_of_the_paper_is_that_of_the_first_defaults():
    """Whatever the defaults become: readout vectors, uniform weights, exact EM, a strength that the model chooses."""
    of_paper = expand_preset(december_trainer, {"preset": "paper"})
    assert training_settings(december_trainer, {"preset": "paper"}) == TrainingSettings(
        **{"max_iter": 200, "lr_init": 0.009, "patience": 5, "tolerance": 1e-6, "lr_decay_steps": 3},
        **{"lr_decay_factor": 0.3, "min_lr": 1e-4, "lr_decay": "restore", "scale_loss": True},
        **{"scale_loss_trials": "train", "pretrain_epochs": 40, "pretrain_early_stopping": False},
        **{"fresh_optimizer": False, "best_epoch_from": "training"},
    )
    clustering = {name: of_paper[name] for name in ClusteringSettings.__dataclass_fields__ if name in of_paper}
    assert clustering == {
        **{"strength": "auto", "space": "readout", "normalize": "none", "dof": 2.1, "weights": "uniform"},
        **{"scale_bounds": [1e-4, 1e4], "detach_target": False, "kmeans_n_init": 20, "kmeans_seeds": "spawned"},
        **{"mixture_n_init": 0, "start_scales": "clamped", "scale_centers": "new", "empty_clusters": "keep"},
        **{"restore_mixture": True},
    }
    assert not {"space", "weights", "strength"} & expand_preset(baseline_trainer, {"preset": "paper"}).keys()
    # Its trainings are those of release 1, byte for byte, and no strength needs to be given.
    paper, plain = (december(**settings) for settings in ({"preset": "paper"}, {}))
    assert all(torch.equal(paper[2][name], value) for name, value in plain[2].items())


PRESET_ERRORS = [
    (
        {"preset": "publisched", "n_clusters": 2},
        r"preset is 'publisched'\. Did you mean 'published'\? Allowed: paper, published\.",
    ),
    ({"preset": 3, "n_clusters": 2}, r"preset is 3\. Allowed: paper, published\."),
    (
        {"preset": "published", "n_clusters": 2},
        r"preset is 'published', which needs the setting 'strength': the published experiments have no default\. They "
        r"chose it in the order of magnitude of the model loss at initialization: 1e4 to 1e7 for mouse V1\. 'auto' is "
        r"orders of magnitude weaker\.",
    ),
    ({"preset": "published", "strength": 1e4}, r"december_trainer needs the setting 'n_clusters'; it has no default\."),
]


@pytest.mark.parametrize(("config", "message"), PRESET_ERRORS)
def test_presets_that_cannot_be(config, message):
    with pytest.raises(SettingsError, match=message):
        check_trainer_config(december_trainer, config)
    with pytest.raises(SettingsError, match=message):
        december_trainer(make_model(), make_loaders(), 1, **config)


def sweep(**trainer):
    entry = {"fn": "december_plugin.trainers.december_trainer", **trainer}
    return {
        "seeds": [1],
        "datasets": [{"fn": "december_plugin.datasets.static_loaders", "config": {"paths": ["a"], "batch_size": 8}}],
        "models": [{"fn": "december_plugin.models.stacked_core_gaussian_readout"}],
        "trainers": [entry],
        "clusterings": [{"method": "gmm", "n_clusters": [2]}],
    }


def test_a_sweep_registers_the_values_of_a_preset():
    config = {"n_clusters": 2, "strength": 1e4, "lr_decay_steps": 3}
    content = sweep(config=config, grid={"preset": ["published", None]}, comment="{preset} {fresh_optimizer}")
    with pytest.raises(SweepError, match=r"the comment .* names 'fresh_optimizer', which is not a setting"):
        parse_sweep(content)
    content["trainers"][0]["comment"] = "preset {preset}"
    published, plain = parse_sweep(content).trainers
    assert plain.config == config
    assert published.config == {
        **{"max_iter": 200, "lr_init": 0.009, "patience": 5, "tolerance": 1e-6, "lr_decay_factor": 0.3, "min_lr": 1e-4},
        **{"lr_decay": "plateau", "scale_loss": True, "scale_loss_trials": "all", "pretrain_early_stopping": True},
        **{"fresh_optimizer": True, "best_epoch_from": "pretraining_end", "pretrain_epochs": 10, "dof": 2.1},
        **{"weights": "uniform", "scale_bounds": [1e-4, 1e4], "detach_target": False, "kmeans_n_init": 20},
        **{"kmeans_seeds": "joint", "start_scales": "unclamped", "scale_centers": "old", "empty_clusters": "reseed"},
        **{"restore_mixture": False, "n_clusters": 2, "strength": 1e4, "lr_decay_steps": 3},
    }
    assert (published.comment, plain.comment) == ("preset published", "preset None")


def test_the_preset_of_a_sweep_that_is_misspelled_or_lacks_something():
    with pytest.raises(SweepError, match=r"preset is 'article'\. Allowed: paper, published\."):
        parse_sweep(sweep(config={"preset": "article", "n_clusters": 2, "strength": 1}))
    with pytest.raises(SweepError, match="needs the setting 'strength': the published experiments have") as caught:
        parse_sweep(sweep(config={"preset": "published", "n_clusters": 2, "patience": 0}))
    assert "patience is 0; it must be at least 1." in str(caught.value)  # told along with it


def test_advice_knows_which_pretrainings_are_the_same():
    def missing(control):
        content = sweep(config={"preset": "published", "n_clusters": 2, "strength": 1e4})
        content["trainers"] += [
            {"fn": "december_plugin.trainers.baseline_trainer", "config": config}
            for config in ({}, {"pretrain_epochs": 10, "stop_after_pretraining": True, **control})
        ]
        return [line for line in advice(parse_sweep(content)) if "no control ends" in line]

    assert missing({"preset": "published"}) == []
    assert len(missing({})) == 1


def test_who_changes_expanded_settings_does_not_change_the_preset():
    first = expand_preset(december_trainer, {"preset": "published", "strength": 1.0})
    first["scale_bounds"][0] = 1.0
    assert expand_preset(december_trainer, {"preset": "published", "strength": 1.0})["scale_bounds"] == [1e-4, 1e4]


def test_a_function_without_presets_may_have_a_setting_of_this_name():
    assert expand_preset(lambda preset: None, {"preset": "own", "a": 1}) == {"preset": "own", "a": 1}


def test_settings_that_a_configuration_means():
    assert training_settings(baseline_trainer, {"preset": "published", "patience": 3}).patience == 3
    assert training_settings(baseline_trainer, {}).lr_decay_steps == 3


# --- the number of threads ------------------------------------------------------------------------------------


@pytest.fixture
def threads():
    """Set torch's number of threads, and reset it."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def n_threads(monkeypatch):
    """Return a list that fills with the number of threads of every epoch."""
    seen = []
    original = loop.TrainingRun._run_epoch

    def noting(self, phase):
        seen.append(torch.get_num_threads())
        return original(self, phase)

    monkeypatch.setattr(loop.TrainingRun, "_run_epoch", noting)
    return seen


@pytest.mark.slow(4)
def test_a_pretraining_is_shared_only_by_those_with_as_many_threads(threads):
    settings = {"n_clusters": 2, "pretrain_epochs": 1, "max_iter": 2}
    for number, epochs in ((1, 2), (2, 2), (1, 1), (2, 1)):
        threads(number)
        recorder = Recorder(record=False)
        output = dict(train(recorder, **settings)[1])
        assert len(recorder.progress) == epochs
        assert output["threads"] == number


def test_an_interrupted_training_goes_on_with_the_threads_that_it_began_with(threads, monkeypatch, caplog):
    settings = {"n_clusters": 2, "pretrain_epochs": 2, "max_iter": 4}
    threads(1)
    recorder = Recorder()
    expected = train(recorder, **settings, share_pretraining=False)
    threads(2)
    seen = n_threads(monkeypatch)
    with caplog.at_level(logging.WARNING):
        for epoch in (1, 3):
            assert train(Recorder(recorder.states[epoch]), **settings) == expected
            assert torch.get_num_threads() == 2
    assert seen == [1, 1, 1, 1]
    assert (
        "the interrupted training ran with 1 thread(s) and continues with as many, not with the 2 of this process, so "
        "that it ends with the same bytes"
    ) in caplog.text


def test_the_number_of_threads_changes_the_bytes():
    """If this fails, torch has learned to do without it, and so can the key of a pretraining."""
    w = torch.randn(400, 400, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    try:
        sums = []
        for number in (1, 2):
            torch.set_num_threads(number)
            sums.append(w.sum())
    finally:
        torch.set_num_threads(before)
    assert not torch.equal(*sums)
