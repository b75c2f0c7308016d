"""Every check of a setting says which setting it is about: callers find its place without reading the message."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from december_plugin.clustering.methods import canonical_settings
from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.clustering.student_t_mixture import StudentTMixture
from december_plugin.datasets import movie_loaders, static_loaders
from december_plugin.errors import MissingSettingError, SettingsError, UnknownSettingError
from december_plugin.evaluation.surrogate_settings import SurrogateSettings
from december_plugin.models import stacked_core_gaussian_readout
from december_plugin.sweeps.functions import made_up_session
from december_plugin.training.settings import ClusteringSettings, TrainingSettings, resolve_device
from december_plugin.validation.checks import (
    check_bool,
    check_bounds,
    check_choice,
    check_count,
    check_fraction,
    check_integer,
    check_number,
    check_odd,
    check_seed,
    expand_preset,
)


def model(**settings: Any) -> None:
    stacked_core_gaussian_readout(None, 0, **settings, data_info=made_up_session(stacked_core_gaussian_readout))


ABOUT: list[tuple[Callable[[], Any], str, tuple[str, ...]]] = [
    (lambda: check_integer("a", 0.5, minimum=1), "a", ()),
    (lambda: check_integer("a of 'b'", 0, minimum=1, setting="a"), "a", ()),
    (lambda: check_count("a", True), "a", ()),
    (lambda: check_odd("a", 2), "a", ()),
    (lambda: check_seed("a", -1), "a", ()),
    (lambda: check_number("a", 0, above=0), "a", ()),
    (lambda: check_number("a", "x", minimum=0), "a", ()),
    (lambda: check_fraction("a", 2), "a", ()),
    (lambda: check_bounds("a", (1, 0)), "a", ()),
    (lambda: check_bool("a", 1), "a", ()),
    (lambda: check_choice("a", "x", ("y",)), "a", ()),
    (lambda: expand_preset(stacked_core_gaussian_readout, {"preset": "publishd"}), "preset", ()),
    (lambda: TrainingSettings(lr_decay_factor=2), "lr_decay_factor", ()),
    (lambda: TrainingSettings(pretrain_lr_decay_factor=2), "pretrain_lr_decay_factor", ()),
    (lambda: TrainingSettings(stop_after_pretraining=True), "stop_after_pretraining", ("pretrain_epochs",)),
    (lambda: TrainingSettings(pretrain_epochs=9, max_iter=9), "pretrain_epochs", ("max_iter",)),
    (lambda: resolve_device("cup"), "device", ()),
    (lambda: ClusteringSettings(n_clusters=2, strength="a lot"), "strength", ()),
    (lambda: ClusteringSettings(n_clusters=2, scale_bounds=(2, 1)), "scale_bounds", ()),
    (lambda: StudentTMixture(2, 2, dof=0), "dof", ()),
    (lambda: StudentTMixture(2, 2, weights="learnt"), "weights", ()),
    (lambda: cluster_readouts([[0.0], [1.0]], method="gm", n_clusters=1), "method", ()),
    (lambda: cluster_readouts([[0.0], [1.0]], method="gmm", n_clusters=3), "n_clusters", ()),
    (lambda: cluster_readouts([[0.0], [1.0]], method="gmm", n_clusters=1, inits=3), "inits", ()),
    (lambda: canonical_settings("gmm", {"tol": float("inf")}), "tol", ()),
    (lambda: SurrogateSettings(n_draws=10**6), "n_draws", ()),
    (lambda: SurrogateSettings(clusterings=["gm"]), "clusterings", ()),
    (lambda: SurrogateSettings(name=""), "name", ()),
    (lambda: model(hidden_kern=[3, 3], layers=2), "hidden_kern", ("layers",)),
    (lambda: model(grid_mean_predictor={"type": "cortex", "input_dimensions": 0}), "grid_mean_predictor", ()),
    (lambda: model(grid_mean_predictor={"kind": "cortex"}), "grid_mean_predictor", ()),
    (lambda: model(input_kern=99), "input_kern", ("hidden_kern", "pad_input")),
    (
        lambda: static_loaders(["a"], 8, neuron_ids=[[1]], areas=["V1"]),
        "neuron_ids",
        ("areas", "layers", "neuron_n", "exclude_neuron_n"),
    ),
    (lambda: static_loaders(["a"], 8, image_n=3), "image_n", ("image_base_seed", "seed")),
    (lambda: movie_loaders(["a"], 8, 40, lead_frames=-1), "lead_frames", ()),
    (lambda: movie_loaders(["a"], 8, 40, inputs_mean=1.0), "inputs_mean", ("inputs_std",)),
]


@pytest.mark.parametrize(("call", "setting", "others"), ABOUT)
def test_an_error_names_its_setting(call: Callable[[], Any], setting: str, others: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError) as caught:
        call()
    assert (caught.value.setting, caught.value.others) == (setting, others)


def test_unknown_and_missing_settings_are_errors_of_their_own() -> None:
    with pytest.raises(UnknownSettingError) as unknown:
        model(layer=2)
    assert (unknown.value.setting, type(unknown.value)) == ("layer", UnknownSettingError)
    with pytest.raises(MissingSettingError) as missing:
        static_loaders(paths=["a"])
    assert missing.value.setting == "batch_size"


def test_an_error_keeps_its_setting_on_its_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(SettingsError("a is 1.", setting="a", others=["b"])))
    assert (str(error), error.setting, error.others) == ("a is 1.", "a", ("b",))
