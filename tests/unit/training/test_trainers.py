"""Both trainers on a model and loaders that another package built."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
import torch

from december_plugin.clustering.student_t_mixture import StudentTMixture
from december_plugin.embeddings.readout_vectors import stack_readout_vectors
from december_plugin.errors import RecordingError, SettingsError, TrainingDivergedError
from december_plugin.trainers import baseline_trainer, december_trainer
from december_plugin.training import loop
from december_plugin.training.objective import ModelLoss, validation_correlation
from december_plugin.training.schedule import EarlyStopping
from december_plugin.training.trainers import check_trainer_config
from helpers.trainings import BATCH_SIZE, N_NEURONS, N_TRAIN, make_loaders, make_model

pytestmark = pytest.mark.usefixtures("own_pretrainings")

QUICK = {"max_iter": 5, "pretrain_epochs": 3, "device": "cpu", "lr_init": 0.01}


@pytest.fixture
def epochs(monkeypatch):
    """Record the (epoch, phase) pairs that are really computed."""
    computed = []
    original = loop.TrainingRun._run_epoch

    def counting(self, phase):
        score = original(self, phase)
        computed.append((self.epoch, phase))
        return score

    monkeypatch.setattr(loop.TrainingRun, "_run_epoch", counting)
    return computed


def same_bytes(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def december(seed=1, *, model_seed=0, loaders=None, **settings):
    settings = {**QUICK, "n_clusters": 2, **settings}
    return december_trainer(make_model(seed=model_seed), loaders or make_loaders(), seed, **settings)


def test_triple_of_a_december_training():
    model, loaders = make_model(), make_loaders()
    score, output, state_dict = december_trainer(model, loaders, 1, n_clusters=2, **QUICK)
    curves = output["curves"]
    assert curves["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert curves["phase"].tolist() == [0, 0, 0, 1, 1]
    assert np.isnan(curves["clustering_loss"][:3]).all()
    assert (curves["clustering_loss"][3:] > 0).all()
    assert score == curves["validation_correlation"][3:].max()
    assert output["best_epoch"] in (4, 5)
    assert output["trainer"] == "december"
    assert output["stopped_by"] == "max_iter"
    assert output["settings"]["n_clusters"] == 2
    assert output["mixture"]["centers"].shape == (2, 6)
    assert output["clustering"]["gradient_ratio"] == pytest.approx(0.01, rel=1e-6)
    assert list(output["neurons"]) == ["one", "two"]
    assert output["neurons"]["one"]["unit_ids"].tolist() == list(range(100, 114))
    assert output["neurons"]["two"]["n_neurons"] == 9
    assert same_bytes(state_dict, model.state_dict())
    assert not model.training


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    first, again, other = december(1, share_pretraining=False), december(1), december(2)
    assert first[0] == again[0]
    assert same_bytes(first[2], again[2])
    np.testing.assert_equal(first[1], again[1])
    assert not same_bytes(first[2], other[2])


def test_a_sweep_over_clusters_and_strengths_pretrains_once(epochs):
    december(n_clusters=2)
    assert epochs == [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1)]
    epochs.clear()
    shared = december(n_clusters=3, strength=2.0)
    assert epochs == [(4, 1), (5, 1)]
    alone = december(n_clusters=3, strength=2.0, share_pretraining=False)
    assert same_bytes(shared[2], alone[2])
    np.testing.assert_equal(shared[1], alone[1])


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"model_seed": 1},
        {"loaders": "other responses"},
        {"lr_init": 0.02},
        {"pretrain_epochs": 2},
        {"scale_loss": False},
    ],
)
def test_what_a_pretraining_depends_on_is_not_shared(epochs, change):
    december()
    epochs.clear()
    if "loaders" in change:
        change = {"loaders": make_loaders(data_seed=7)}
    december(**change)
    assert epochs[0] == (1, 0)


def test_a_model_with_equal_weights_and_other_regularization_is_not_served_the_same_pretraining(epochs):
    december()
    epochs.clear()
    december_trainer(make_model(gamma_readout=0.5), make_loaders(), 1, n_clusters=2, **QUICK)
    assert epochs[0] == (1, 0)


def test_the_control_ends_with_the_pretraining_and_shares_it(epochs):
    december()
    epochs.clear()
    model = make_model()
    score, output, _ = baseline_trainer(model, make_loaders(), 1, stop_after_pretraining=True, **QUICK)
    assert epochs == []
    assert output["curves"]["epoch"].tolist() == [1, 2, 3]
    assert output["stopped_by"] == "end of pretraining"
    assert output["best_epoch"] == 3
    assert score == output["curves"]["validation_correlation"][-1]


def test_the_baseline_is_a_december_run_of_strength_zero():
    baseline = baseline_trainer(make_model(), make_loaders(), 1, **QUICK)
    zero = december(strength=0)
    assert same_bytes(baseline[2], zero[2])
    assert baseline[0] == zero[0]
    assert baseline[1]["trainer"] == "baseline"
    assert baseline[1]["mixture"] is None


def test_the_mixture_is_restored_together_with_the_weights(monkeypatch):
    """The best epoch is the first after pretraining: weights and mixture must both be of that epoch."""
    scores = iter([0.1, 0.1, 0.1, 0.9, 0.2])
    monkeypatch.setattr(loop, "validation_correlation", lambda *args, **kwargs: next(scores))
    _, output, state_dict = december(share_pretraining=False)
    one_epoch_scores = iter([0.1, 0.1, 0.1, 0.9])
    monkeypatch.setattr(loop, "validation_correlation", lambda *args, **kwargs: next(one_epoch_scores))
    _, expected, expected_state = december(share_pretraining=False, max_iter=4)
    assert output["best_epoch"] == 4
    assert same_bytes(state_dict, expected_state)
    np.testing.assert_equal(output["mixture"], expected["mixture"])


def test_a_best_epoch_from_before_the_clustering_does_not_count(monkeypatch):
    scores = iter([0.9, 0.8, 0.7, 0.2, 0.1])
    monkeypatch.setattr(loop, "validation_correlation", lambda *args, **kwargs: next(scores))
    score, output, _ = december(share_pretraining=False)
    assert (score, output["best_epoch"]) == (0.2, 4)


def test_assignments_follow_from_the_stored_mixture():
    model = make_model()
    _, output, _ = december_trainer(model, make_loaders(), 1, n_clusters=2, **QUICK)
    stored = output["mixture"]
    mixture = StudentTMixture(2, 6, dof=stored["dof"])
    mixture.load_state_dict({n: torch.as_tensor(stored[n]) for n in ("centers", "scales", "mixing_weights")})
    q, _ = mixture.e_step(stack_readout_vectors(model).detach())
    assert q.shape == (sum(N_NEURONS.values()), 2)
    torch.testing.assert_close(q.sum(1).double(), torch.ones(len(q), dtype=torch.float64))


def test_a_given_strength_is_used_and_its_ratio_recorded():
    auto = december()[1]["clustering"]
    number = december(strength=2 * auto["strength"])[1]["clustering"]
    assert number["strength"] == 2 * auto["strength"]
    assert number["gradient_ratio"] == pytest.approx(0.02, rel=1e-6)
    assert not number["locked_in"]


def test_a_strength_that_only_freezes_the_partition_is_warned_of():
    strength = december()[1]["clustering"]["strength"]
    with pytest.warns(UserWarning, match=r"so strong \(gradient ratio 0\.2, above 0\.1\).*Lower strength, or use"):
        output = december(strength=20 * strength)[1]
    assert output["clustering"]["locked_in"]


def test_model_loss_scales_the_poisson_loss_and_adds_both_regularizers():
    model, loaders = make_model().eval(), make_loaders()
    batch = next(iter(loaders["train"]["one"]))
    prediction = model(batch.images, data_key="one")
    poisson = (prediction - batch.responses * torch.log(prediction + 1e-12)).sum()
    expected = (N_TRAIN / BATCH_SIZE) ** 0.5 * poisson + model.core.regularizer() + model.readout.regularizer("one")
    loss = ModelLoss(model, loaders["train"], scale_loss=True, device=torch.device("cpu"))
    torch.testing.assert_close(loss("one", batch), expected)


def test_random_state_is_as_before_after_a_training():
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    december(share_pretraining=False)
    after = random.random(), np.random.rand(), torch.rand(())
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    assert after == (random.random(), np.random.rand(), torch.rand(()))


def test_loaders_with_generators_of_their_own_go_on_where_the_pretraining_left_them():
    def loaders():
        made = make_loaders()
        for loader in made["train"].values():
            loader.sampler.generator = torch.Generator()
        return made

    december(loaders=loaders(), n_clusters=3)
    shared = december(loaders=loaders())
    alone = december(loaders=loaders(), share_pretraining=False)
    assert same_bytes(shared[2], alone[2])


def test_callback_is_called_every_epoch_and_an_outage_does_not_kill_the_training(caplog):
    calls = []

    class LostConnectionError(Exception):
        pass

    LostConnectionError.__module__ = "datajoint.errors"

    def callback(**arguments):
        calls.append((arguments["uid"], arguments["epoch"], arguments["info"]["phase"]))
        raise LostConnectionError("gone away")

    december(share_pretraining=False, uid={"seed": 1}, cb=callback)
    assert calls == [({"seed": 1}, e, p) for e, p in ((1, 0), (2, 0), (3, 0), (4, 1), (5, 1))]
    assert "the callback after epoch 1 failed (gone away); the training continues" in caplog.text


def test_a_bug_in_a_callback_is_not_hidden():
    def callback(**arguments):
        raise KeyError("bug")

    with pytest.raises(KeyError):
        december(cb=callback)


@pytest.mark.parametrize("unit_ids", [True, False])
def test_unit_ids_are_stored_where_the_loaders_have_them(unit_ids):
    output = december(loaders=make_loaders(unit_ids=unit_ids))[1]
    assert (output["neurons"]["one"]["unit_ids"] is not None) == unit_ids


def test_divergence_names_the_epoch_and_the_settings():
    loaders = make_loaders()
    for loader in loaders["train"].values():
        loader.dataset.responses[:N_TRAIN] *= float("inf")
        loader.dataset.responses.nan_to_num_(nan=float("inf"))
    with pytest.raises(TrainingDivergedError, match=r"diverged in epoch 1: .*Lower lr_init \(now 0\.01\), and look at"):
        december(loaders=loaders)


def test_divergence_in_the_clustering_names_the_strength():
    message = r"in epoch 4: .*Lower lr_init .* or strength \(now 1e\+300\)"
    with pytest.warns(UserWarning, match="so strong"), pytest.raises(TrainingDivergedError, match=message):
        december(strength=1e300)


SETTINGS_ERRORS = [
    ({"strenght": 3}, r"december_trainer has no setting 'strenght'\. Did you mean 'strength'\? Allowed: "),
    ({"n_clusters": 0}, r"n_clusters is 0; it must be at least 1\."),
    ({"n_clusters": 2.5}, r"n_clusters is 2\.5; it must be an integer of at least 1\."),
    ({"n_clusters": 24}, r"n_clusters is 24, more than the 23 neurons of all sessions\."),
    ({"seed": -1}, r"the seed is -1; k-means needs one from 0 to 4294967295\."),
    ({"strength": "strong"}, r"strength is 'strong'; it must be a number of at least 0, or 'auto'\."),
    ({"detach_target": "false"}, r"detach_target is 'false'; it must be true or false\."),
    ({"scale_loss": 1}, r"scale_loss is 1; it must be true or false\."),
    ({"lr_decay_factor": 3}, r"lr_decay_factor is 3; it must be at most 1\."),
    ({"scale_bounds": [1, 0.1]}, r"scale_bounds is \[1, 0\.1\], but must be two positive, finite numbers in rising"),
    ({"strength": -1}, r"strength is -1; it must be a number of at least 0\."),
    ({"lr_init": 0}, r"lr_init is 0; it must be a number above 0\."),
    ({"weights": "unifrom"}, r"weights is 'unifrom'\. Did you mean 'uniform'\? Allowed: learned, uniform\."),
    ({"pretrain_epochs": 5}, r"pretrain_epochs is 5 and max_iter.*is 5: no epoch is left"),
    ({"space": "functonal"}, r"space is 'functonal'\. Did you mean 'functional'\? Allowed: functional, readout\."),
    ({"normalize": "L2"}, r"normalize is 'L2'\. Allowed: l2, none\."),
    ({"covariance_refresh": "step"}, r"covariance_refresh is 'step'\. .*Allowed: epoch, never\."),
    ({"device": "gpu"}, r"device is 'gpu'; it must be 'auto', 'cpu', 'cuda' or 'cuda:0' and so on\."),
]


@pytest.mark.parametrize(("settings", "message"), SETTINGS_ERRORS)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        december(**settings)


def test_a_mistake_is_found_before_the_pretraining(epochs):
    with pytest.raises(SettingsError, match="more than the 23 neurons"):
        december(n_clusters=24)
    assert epochs == []


@pytest.mark.parametrize("name", ["seed", "model", "cb"])
def test_what_nnfabrik_passes_is_no_setting(name):
    with pytest.raises(SettingsError, match=f"december_trainer has no setting '{name}'"):
        check_trainer_config(december_trainer, {"n_clusters": 2, name: 1})


def test_sessions_without_measured_validation_responses_do_not_count_in_the_validation_correlation():
    loaders, model = make_loaders(), make_model()
    device = torch.device("cpu")
    expected = validation_correlation(model, {"one": loaders["validation"]["one"]}, device=device)
    loaders["validation"]["two"].dataset.responses[N_TRAIN:] = 0
    assert validation_correlation(model, loaders["validation"], device=device) == pytest.approx(expected)
    loaders["validation"]["one"].dataset.responses[N_TRAIN:] = 3
    message = (
        "all validation responses of all sessions are constant, so a training cannot be judged by them. Assign "
        "measured trials to the tier 'validation'."
    )
    with pytest.raises(RecordingError, match=f"^{re.escape(message)}$"):
        validation_correlation(model, loaders["validation"], device=device)


def test_the_learning_rate_never_rises(monkeypatch):
    monkeypatch.setattr(loop, "validation_correlation", lambda *args, **kwargs: 0.1)
    output = december(lr_init=5e-5, patience=1, max_iter=7, lr_decay_steps=9, share_pretraining=False)[1]
    assert set(output["curves"]["learning_rate"]) == {5e-5}


def test_a_missing_setting_is_named():
    with pytest.raises(SettingsError, match=r"december_trainer needs the setting 'n_clusters'; it has no default\."):
        december_trainer(make_model(), make_loaders(), 1)


def test_a_cuda_device_that_is_not_there_is_an_error():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SettingsError, match=r"device is 'cuda', but this machine has 0 GPUs .* Use 'auto'"):
        december(device="cuda")


def test_loaders_without_a_validation_tier():
    loaders = make_loaders()
    del loaders["validation"]
    with pytest.raises(SettingsError, match=r"with the tiers 'train' and 'validation'.*; it returned: train\."):
        december(loaders=loaders)


def test_model_and_loaders_of_different_sessions():
    loaders = make_loaders()
    del loaders["train"]["two"], loaders["validation"]["two"]
    with pytest.raises(SettingsError, match=r"the train tier has the sessions \['one'\], but the model's readout has"):
        december(loaders=loaders)


def test_early_stopping_decays_then_stops():
    stopping = EarlyStopping(patience=2, tolerance=0.01, lr_decay_steps=2)
    scores = [0.5, 0.505, 0.4, 0.6, 0.5, 0.5]
    verdicts = [stopping.update(epoch, score, lambda e=epoch: {"epoch": e}) for epoch, score in enumerate(scores, 1)]
    assert verdicts == ["improved", "waiting", "decay", "improved", "waiting", "stop"]
    assert (stopping.best_score, stopping.best_epoch, stopping.best_state) == (0.6, 4, {"epoch": 4})


def test_patience_decays_the_learning_rate_and_ends_the_training(monkeypatch):
    scores = iter([0.1, 0.1, 0.1, 0.5, 0.4, 0.4, 0.4, 0.4])
    monkeypatch.setattr(loop, "validation_correlation", lambda *args, **kwargs: next(scores))
    _, output, _ = december(patience=2, lr_decay_steps=2, max_iter=50, share_pretraining=False)
    assert output["stopped_by"] == "patience"
    assert output["n_epochs"] == 8
    np.testing.assert_allclose(output["curves"]["learning_rate"], [0.01] * 6 + [0.003] * 2)
