"""What entries of imported models name as their functions."""

import pytest
import torch

from december_plugin.errors import SettingsError
from december_plugin.imports import entries, stored_names
from december_plugin.security.allowed_modules import AllowedModules, restricted_to
from december_plugin.sweeps import functions

SESSIONS = {"a": [3, "abc"], "b": [2, ""]}
INFO = {"a": {"input_dimensions": [1, 1, 12, 12], "input_channels": 1, "output_dimension": [1, 3]}}


@pytest.mark.parametrize(
    "name", [stored_names.NEURONS, stored_names.READOUTS, stored_names.MODEL, stored_names.TRAINER]
)
def test_the_stored_names_lead_to_the_functions(name: str) -> None:
    assert name.startswith("december_plugin.imports.entries.imported_")
    assert len(name) <= 64
    assert functions.resolve("trainers", name).__name__ == name.rpartition(".")[2]
    AllowedModules().check(name, table="entry")


def test_loaders_without_trials() -> None:
    loaders = entries.imported_neurons(sessions=SESSIONS, seed=3)
    assert list(loaders) == ["train", "validation", "test"]
    assert {key: (loader.n_neurons, list(loader)) for key, loader in loaders["test"].items()} == {
        "a": (3, []),
        "b": (2, []),
    }


def test_readouts_in_the_precision_of_the_vectors() -> None:
    loaders = entries.imported_neurons(sessions=SESSIONS)
    net = entries.imported_readouts(loaders, 1, name="x", n_features=4, precision="float64")
    assert {name: (value.dtype, tuple(value.shape)) for name, value in net.state_dict().items()} == {
        "readout.a.features": (torch.float64, (1, 4, 1, 3)),
        "readout.b.features": (torch.float64, (1, 4, 1, 2)),
    }


def test_a_worker_runs_only_model_functions_that_are_allowed() -> None:
    settings = {"name": "x", "fn": "os.path.join", "config": {}, "data_info": INFO}
    with (
        restricted_to(AllowedModules()),
        pytest.raises(SettingsError, match=r"the imported model names the function 'os.path.join'. Only functions of"),
    ):
        entries.imported_model(None, 1, **settings)
    ours = {**settings, "fn": "december_plugin.models.stacked_core_gaussian_readout"}
    ours["config"] = {"hidden_channels": 2, "layers": 1, "input_kern": 3, "grid_mean_predictor": None}
    with restricted_to(AllowedModules()):
        assert list(entries.imported_model(None, 1, **ours).readout) == ["a"]


def test_the_trainer_cannot_train() -> None:
    with pytest.raises(
        SettingsError, match=r"was trained elsewhere and cannot be trained here. `december import` with"
    ):
        entries.imported_trainer(torch.nn.Linear(1, 1), {}, 1, trained="by hand")
    with pytest.raises(SettingsError, match=r"imported_trainer has no setting 'train'. Did you mean 'trained'"):
        entries.imported_trainer(torch.nn.Linear(1, 1), {}, 1, train="by hand")
