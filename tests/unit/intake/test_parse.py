"""Import files: what is read of them, and every mistake with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import nn

from december_plugin.cli import main
from december_plugin.clustering.methods import POST_HOC
from december_plugin.imports import entries, stored_names
from december_plugin.intake.file_format import ImportFileError
from december_plugin.intake.parse import Import, load_import, parse_import
from december_plugin.models import stacked_core_gaussian_readout

N, D = 9, 4
VECTORS = np.random.default_rng(1).normal(size=(N, D)).astype(np.float32)
FN = "december_plugin.models.stacked_core_gaussian_readout"
CONFIG = {"hidden_channels": D, "input_kern": 5, "hidden_kern": 3, "layers": 2, "grid_mean_predictor": None}
SHAPE = [1, 14, 16]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in (2, 10, 1):  # sorted as numbers
        np.save(tmp_path / f"w{seed}.npy", seed * VECTORS)
    pd.DataFrame({"data_key": "a", "unit_id": np.arange(N)}).to_csv(tmp_path / "units.csv", index=False)
    return tmp_path


def read(folder: Path, **sections: Any) -> Import:
    (folder / "models.yaml").write_text(yaml.safe_dump(sections, sort_keys=False))
    return load_import(folder / "models.yaml")


def model(**keys: Any) -> list[dict[str, Any]]:
    return [{"name": "twin", **({} if "checkpoints" in keys else {"readouts": "w*.npy"}), **keys}]


def test_one_model_for_each_file(folder: Path) -> None:
    found = read(folder, models=model(trained="by hand"), units="units.csv", recording="V1", clusterings=[KMEANS])
    assert [(each.seed, Path(each.file).name) for each in found.models] == [
        (1, "w1.npy"),
        (2, "w2.npy"),
        (3, "w10.npy"),
    ]
    first = found.models[0]
    assert first.model.fn == stored_names.READOUTS
    assert first.model.config == {"name": "twin", "n_features": D, "precision": "float32"}
    assert (first.trainer.fn, first.trainer.config) == (stored_names.TRAINER, {"trained": "by hand"})
    assert first.dataset.fn == stored_names.NEURONS
    assert first.dataset.config["sessions"].keys() == {"a"}
    assert first.dataset.config["sessions"]["a"][0] == N
    assert {each.dataset.config["sessions"]["a"][1] for each in found.models} == {
        first.dataset.config["sessions"]["a"][1]
    }
    assert [entry.n_clusters for entry in found.clusterings] == [2, 3]
    # The entries build what the weights fit into.
    loaders = entries.imported_neurons(**first.dataset.config)
    net = entries.imported_readouts(loaders, 1, **first.model.config)
    net.load_state_dict(first.state_dict)
    assert torch.equal(net.readout["a"].features[0, :, 0], torch.from_numpy(VECTORS.T))


KMEANS = {"method": "kmeans", "n_clusters": [2, 3]}


def test_values_in_place_of_files() -> None:
    found = parse_import({"models": [{"name": "one", "readouts": [VECTORS, 2 * VECTORS], "seeds": [5, 6]}]})
    assert [(each.seed, each.file) for each in found.models] == [(5, "one, number 1"), (6, "one, number 2")]
    assert found.models[1].embeddings.unit_ids is None


def test_a_digest_is_of_everything_that_is_stored() -> None:
    def digest(vectors: np.ndarray = VECTORS, **keys: Any) -> str:
        return parse_import({"models": [{"name": "one", "readouts": [vectors], **keys}]}).models[0].digest()

    assert digest() == digest(VECTORS.copy())
    different = [digest(), digest(2 * VECTORS), digest(VECTORS.astype(np.float64)), digest(covariances=[np.eye(D)])]
    different.append(digest(units=pd.DataFrame({"data_key": "imported", "unit_id": np.arange(N)})))
    assert len(set(different)) == len(different)


# ---- model functions


def weights(seed: int = 1, **changes: Any) -> nn.Module:
    info = {"input_dimensions": [1, *SHAPE], "input_channels": 1, "output_dimension": [1, N]}
    net = stacked_core_gaussian_readout(None, seed, data_info={"a": info}, **{**CONFIG, **changes})
    net.readout["a"]._features.data = torch.from_numpy(VECTORS.T.copy())[None, :, None]
    return net.eval()


def function(**changes: Any) -> dict[str, Any]:
    return {"fn": FN, "config": CONFIG, "input_shape": SHAPE, **changes}


def test_a_model_function_with_noise_probes(folder: Path) -> None:
    net = weights()
    torch.save(net.state_dict(), folder / "net.pth")
    found = read(folder, models=model(checkpoints="net.pth", model=function(), probes={"n": 20}))
    (each,) = found.models
    assert each.model.fn == stored_names.MODEL
    assert each.covariance_from == "probes"
    assert each.probes == "20 noise with the spectrum of natural images"
    assert each.covariance.shape == (D, D)
    rebuilt = entries.imported_model(None, 1, **each.model.config)
    rebuilt.load_state_dict(each.state_dict)
    images = torch.randn(3, *SHAPE)
    assert torch.equal(rebuilt.eval()(images, data_key="a"), net(images, data_key="a"))


def test_a_function_of_sensorium_by_its_name(folder: Path) -> None:
    net = weights()
    torch.save(net.state_dict(), folder / "net.pth")
    named = function(fn="sensorium.models.stacked_core_full_gauss_readout")
    (each,) = read(folder, models=model(checkpoints="net.pth", model=named)).models
    assert each.model.config["fn"] == "sensorium.models.stacked_core_full_gauss_readout"
    rebuilt = entries.imported_model(None, 1, **each.model.config)
    assert type(rebuilt) is type(net)


def test_a_folder_of_images(folder: Path) -> None:
    torch.save(weights().state_dict(), folder / "net.pth")
    (folder / "images").mkdir()
    for i in range(3):
        np.save(folder / "images" / f"{i}.npy", np.random.default_rng(i).normal(size=SHAPE[1:]))
    (each,) = read(folder, models=model(checkpoints="net.pth", model=function(), probes="images")).models
    assert each.probes == "3 images of images"
    np.save(folder / "images" / "9.npy", np.zeros((5, 5)))
    mistakes(
        folder,
        "9.npy has (channels, height, width) (1, 5, 5), but the model takes (1, 14, 16)",
        models=model(checkpoints="net.pth", model=function(), probes="images"),
    )


def test_behaviour_is_said_to_stay_at_its_mean(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = [2, *SHAPE[1:]]
    info = {"input_dimensions": [1, *shape], "input_channels": 2, "output_dimension": [1, N]}
    torch.save(stacked_core_gaussian_readout(None, 1, data_info={"a": info}, **CONFIG).state_dict(), folder / "net.pth")
    probes = {"n": 20, "image_channels": 1}
    (each,) = read(folder, models=model(checkpoints="net.pth", model=function(input_shape=shape), probes=probes)).models
    says = "20 noise with the spectrum of natural images. 1 channel(s) of behaviour stay at 0"
    assert each.probes.startswith(says)
    assert main(["import", str(folder / "models.yaml"), "--dry-run"]) == 0
    assert f"  from {says}" in capsys.readouterr().out


def test_biases_that_an_earlier_version_did_not_have(folder: Path) -> None:
    state = weights().state_dict()
    lacks = [key for key in state if "ds_conv" in key and key.endswith(".bias")]
    torch.save({key: value for key, value in state.items() if key not in lacks}, folder / "old.pth")
    old = {"checkpoints": "old.pth", "model": function()}
    mistakes(folder, f"it has no '{lacks[0]}'.", models=model(**old))
    (each,) = read(folder, models=model(**old, missing_as_zero=["core.features.*.ds_conv.*.bias"])).models
    assert list(each.state_dict) == list(state)
    assert all(not each.state_dict[key].any() for key in lacks)


# ---- mistakes


def mistakes(folder: Path, *expected: str, **sections: Any) -> None:
    with pytest.raises(ImportFileError) as raised:
        read(folder, **sections)
    text = str(raised.value)
    assert len(raised.value.mistakes) == len(expected), text
    for part in expected:
        assert part in text
    assert text.count("models.yaml:") == len(expected)


def test_every_mistake_is_told_with_its_line(folder: Path) -> None:
    (folder / "models.yaml").write_text(
        "unit: units.csv\n"
        "models:\n"
        "  - {name: one, readouts: w1.npy, seed: [1]}\n"
        "  - {name: 2, checkpoints: nothing-*.pth}\n"
        "clusterings:\n"
        "  - {method: kmean, n_clusters: 3}\n"
    )
    with pytest.raises(ImportFileError) as raised:
        load_import(folder / "models.yaml")
    found = [(raised.value.mistakes[at].text, line) for at, line in enumerate(lines(str(raised.value)))]
    assert found == [
        (
            "there is no section 'unit'. Did you mean 'units'? Allowed: cluster_confusion, clusterings, "
            "exciting_images, models, recording, stability, surrogates, units.",
            1,
        ),
        (found[1][0], 3),
        (
            "clusterings, entry 1: there is no method 'kmean'. Did you mean 'kmeans'? Allowed: "
            + ", ".join(sorted(POST_HOC))
            + ".",
            6,
        ),
    ]
    assert found[1][0].startswith("models, entry 1: there is no key 'seed'. Did you mean 'seeds'?")


def lines(text: str) -> list[int]:
    return [int(line.split("models.yaml:")[1].split(":")[0]) for line in text.splitlines() if "models.yaml:" in line][
        -3:
    ]


def test_what_a_model_needs(folder: Path) -> None:
    mistakes(folder, "the section 'models' is missing or empty", units="units.csv")
    mistakes(folder, "needs either checkpoints or readouts", models=[{"name": "one"}])
    mistakes(folder, "has covariances and fingerprints", models=model(covariances="a.npy", fingerprints="b.npy"))
    mistakes(folder, "has prefix, which only checkpoints can have", models=model(prefix="model."))
    mistakes(folder, "has a dataset but no model function", models=model(checkpoints="w", dataset={"fn": "a.b"}))
    mistakes(
        folder,
        "has probes, which are for a model function without a recording: name the model function, too",
        models=model(checkpoints="w", probes="noise"),
    )
    mistakes(folder, "probes must be 'noise', a folder of images, or a mapping", models=model(probes=3))
    mistakes(folder, "recording is '/data/V1'; it is a name, and not the path", models=model(), recording="/data/V1")
    mistakes(folder, "there are two models named 'twin'", models=model() + model())
    mistakes(folder, "seeds is [-1]; seeds are from 0 to", models=model(seeds=[-1]))
    mistakes(
        folder,
        "input_shape is [14, 16]; it must be [channels, height, width]",
        models=model(checkpoints="w", model=function(input_shape=[14, 16])),
    )


def test_files_that_are_wrong(folder: Path) -> None:
    torch.save(weights().state_dict(), folder / "net.pth")
    mistakes(folder, "no file matches v*.npy, looked for in", models=model(readouts="v*.npy"))
    mistakes(folder, "w2.npy is named twice", models=model(readouts=["w*.npy", "w2.npy"]))
    mistakes(folder, "there is no checkpoint", models=model(checkpoints="missing.pth"))
    mistakes(folder, "there is no file", models=model(), units="missing.csv")
    mistakes(folder, "there are 2 seeds (2 different ones) for 3 files", models=model(seeds=[1, 2]))
    np.save(folder / "w3.npy", VECTORS[:-1])
    mistakes(folder, "w3.npy cannot be of the same neurons as ", models=model())
    np.save(folder / "w3.npy", VECTORS[:, :-1])
    mistakes(folder, "w3.npy has readout vectors of 3 features and ", models=model())
    np.save(folder / "w3.npy", np.where(np.eye(N, D) == 1, np.nan, VECTORS))
    mistakes(folder, "has NaN or infinite numbers, the first in row 0, column 0", models=model())
    (folder / "w3.npy").unlink()
    mistakes(folder, "n_clusters is 10, but ", models=model(), clusterings=[{"method": "gmm", "n_clusters": [3, 10]}])


def test_model_functions_that_are_wrong(folder: Path) -> None:
    torch.save(weights().state_dict(), folder / "net.pth")

    def wrong(expected: str, **changes: Any) -> None:
        mistakes(folder, expected, models=model(checkpoints="net.pth", model=function(**changes)))

    wrong("a model function without a recording needs input_shape", input_shape=None)
    wrong("the model function 'no.such.function' cannot be used here: No module named 'no'", fn="no.such.function")
    wrong("'function' is not the dotted name of a model function", fn="function")
    wrong("stacked_core_gaussian_readout has no setting 'layer'. Did you mean 'layers'?", config={"layer": 2})
    wrong(
        "'core.features.layer0.conv.weight' is (4, 1, 5, 5) in the checkpoint and (8, 1, 5, 5) in the model",
        config={**CONFIG, "hidden_channels": 8},
    )
    wrong("which has no 'core.features.layer1.", config={**CONFIG, "layers": 1})
    wrong("could not build a model with these settings: TypeError", fn="builtins.len", config={})


def test_covariances(folder: Path) -> None:
    sigma = np.cov(np.random.default_rng(0).normal(size=(D, 50)))
    for seed in (1, 2, 10):
        np.save(folder / f"s{seed}.npy", sigma * seed)
    found = read(folder, models=model(covariances="s*.npy"))
    np.testing.assert_allclose(found.models[2].covariance, 10 * sigma)
    assert found.models[2].covariance_from == "import"
    np.save(folder / "s2.npy", np.triu(sigma))
    mistakes(folder, "s2.npy: the feature covariance is not symmetric", models=model(covariances="s*.npy"))
    np.save(folder / "s2.npy", np.eye(D + 1))
    mistakes(
        folder,
        "s2.npy: the feature covariance is of 5 features and the readout vectors have 4",
        models=model(covariances="s*.npy"),
    )
    (folder / "s2.npy").unlink()
    mistakes(folder, "there are 2 of them for 3 models; each model needs its own", models=model(covariances="s*.npy"))


def test_fingerprints_are_put_into_the_order_of_the_neurons(folder: Path) -> None:
    features = np.random.default_rng(2).normal(size=(60, D))
    keys = np.array(["a", "b"])[np.arange(N) % 2]
    units = pd.DataFrame({"data_key": keys, "unit_id": np.arange(N)})
    drives = VECTORS.astype(float) @ features.T
    found = parse_import({"models": [{"name": "one", "readouts": [VECTORS], "fingerprints": [drives]}], "units": units})
    np.testing.assert_allclose(found.models[0].covariance, np.cov(features.T, ddof=0), atol=1e-9)
    own = units.join(pd.DataFrame(VECTORS).add_prefix("w"))  # the table of weights names the neurons itself
    found = parse_import({"models": [{"name": "one", "readouts": [own], "fingerprints": [drives]}]})
    np.testing.assert_allclose(found.models[0].covariance, np.cov(features.T, ddof=0), atol=1e-9)


def test_what_a_function_of_the_recording_raises_is_a_mistake_of_the_file(folder: Path) -> None:
    torch.save(weights().state_dict(), folder / "net.pth")
    dataset = {"fn": "helpers.planted_lab.loaders", "config": {"no_such_setting": 1}}
    text = "'helpers.planted_lab.loaders' failed with these settings: TypeError: "
    mistakes(folder, text, models=model(checkpoints="net.pth", model=function(), dataset=dataset))


def test_a_file_may_have_brackets_in_its_name(folder: Path) -> None:
    np.save(folder / "w[1].npy", VECTORS)
    found = read(folder, models=model(readouts="w[1].npy", covariances=None))
    assert Path(found.models[0].file).name == "w[1].npy"
