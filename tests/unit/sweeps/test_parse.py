"""Reading and checking sweeps."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import yaml

from december_plugin.errors import SettingsError
from december_plugin.sweeps.parse import ClusteringEntry, load_sweep, parse_sweep

GOOD = yaml.safe_load(
    """
    seeds: [1, 2, 3]
    datasets:
      - fn: december_plugin.datasets.static_loaders
        comment: two sessions
        config: {paths: [one, /absolute/two], batch_size: 16}
    models:
      - fn: december_plugin.models.stacked_core_gaussian_readout
    trainers:
      - fn: december_plugin.trainers.baseline_trainer
        comment: baseline
        config: {pretrain_epochs: 4, max_iter: 6}
      - fn: december_plugin.trainers.december_trainer
        comment: DECEMber, K {n_clusters}, strength {strength}
        config: {pretrain_epochs: 4, max_iter: 6}
        grid: {n_clusters: [2, 3], strength: [auto, 100]}
    clusterings:
      - {method: gmm, n_clusters: [2, 3]}
      - {method: kmeans, n_clusters: 4, n_init: 5}
    """
)


def changed(change) -> dict:
    content = copy.deepcopy(GOOD)
    change(content)
    return content


def test_grids_are_expanded_and_comments_filled():
    sweep = parse_sweep(GOOD)
    assert [entry.comment for entry in sweep.trainers] == [
        "baseline",
        "DECEMber, K 2, strength auto",
        "DECEMber, K 2, strength 100",
        "DECEMber, K 3, strength auto",
        "DECEMber, K 3, strength 100",
    ]
    assert sweep.trainers[2].config == {"pretrain_epochs": 4, "max_iter": 6, "n_clusters": 2, "strength": 100}
    assert sweep.clusterings[-1] == ClusteringEntry("kmeans", 4, {"n_init": 5})
    assert [entry.n_clusters for entry in sweep.clusterings] == [2, 3, 4]
    assert sweep.n_trainings == 15


def test_paths_are_relative_to_the_file(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    assert load_sweep(path).datasets[0].config["paths"] == [str(tmp_path / "one"), "/absolute/two"]


def test_what_is_read_as_a_number_and_as_a_path(tmp_path):
    path = tmp_path / "sweep.yaml"
    text = yaml.safe_dump(GOOD).replace("max_iter: 6", "max_iter: 6\n    lr_init: 1e-3", 1)
    path.write_text(text)
    assert {entry.config.get("lr_init") for entry in load_sweep(path).trainers} == {None, 0.001}
    foreign = changed(lambda c: c["datasets"].append({"fn": "os.path.join", "config": {"paths": ["gs://bucket/a"]}}))
    assert parse_sweep(foreign, folder=tmp_path).datasets[1].config == {"paths": ["gs://bucket/a"]}


MISTAKES = [
    (lambda c: c.update(trainer=[]), r"there is no section 'trainer'\. Did you mean 'trainers'\?"),
    (lambda c: c.pop("models"), r"the section 'models' is missing or empty\."),
    (lambda c: c.update(seeds=[1, 1]), r"seeds is \[1, 1\]; a seed appears twice\."),
    (lambda c: c.update(seeds=[-1]), r"seeds is \[-1\]; seeds are from 0 to 2147483647\."),
    (lambda c: c.update(seeds="1"), r"seeds is '1'; it must be a list of integers\."),
    (lambda c: c["models"][0].update(function="x"), r"models, entry 1: there is no key 'function'\."),
    (lambda c: c["models"][0].pop("fn"), r"models, entry 1: an entry is a mapping with at least the key 'fn'\."),
    (
        lambda c: c["trainers"][0].update(fn="december_plugin.trainers.basline_trainer"),
        r"trainers, entry 1: 'december_plugin\.trainers\.basline_trainer' is not a function that can be imported",
    ),
    (lambda c: c["trainers"][0].update(fn="nowhere.trainer"), r"'nowhere\.trainer' is not a function"),
    (
        lambda c: c["trainers"][0]["config"].update(max_iters=3),
        r"trainers, entry 1: baseline_trainer has no setting 'max_iters'\. Did you mean 'max_iter'\?",
    ),
    (
        lambda c: c["trainers"][1]["grid"].update(n_clusters=[0]),
        r"trainers, entry 2: n_clusters is 0; it must be at least 1\.",
    ),
    (lambda c: c["trainers"][1].update(grid={"strength": ["auto"]}), r"names 'n_clusters', which is not a setting"),
    (lambda c: c["trainers"][1].update(grid={"strength": 3}), r"grid must give each setting a list of values"),
    (
        lambda c: c["trainers"][1].update(comment="{missing}"),
        r"trainers, entry 2: the comment '\{missing\}' names 'missing', which is not a setting\.",
    ),
    (
        lambda c: c["datasets"][0]["config"].update(batch=3),
        r"datasets, entry 1: static_loaders has no setting 'batch'\.",
    ),
    (
        lambda c: c["clusterings"][0].update(method="gm"),
        r"clusterings, entry 1: there is no method 'gm'\. Did you mean",
    ),
    (lambda c: c["clusterings"][1].update(inits=3), r"clusterings, entry 2: kmeans has no setting 'inits'\."),
    (lambda c: c["clusterings"][0].update(n_clusters=[0]), r"clusterings, entry 1: n_clusters is 0; it must be"),
    (
        lambda c: c["clusterings"][0].update(n_cluster=c["clusterings"][0].pop("n_clusters")),
        r"clusterings, entry 1: the method 'gmm' needs n_clusters, an integer of at least 1\. "
        r"It has 'n_cluster': did you mean 'n_clusters'\?",
    ),
    (
        lambda c: c["clusterings"].append({"method": "hdbscan", "n_clusters": 3}),
        r"clusterings, entry 3: n_clusters is 3; leave it out for the method 'hdbscan', which finds their number\.",
    ),
    (
        lambda c: c["clusterings"][0].update(space="functonal"),
        r"clusterings, entry 1: space is 'functonal', which is unknown\. Did you mean 'functional'\?",
    ),
    (
        lambda c: c["clusterings"][1].update(grid={"normalize": ["l2", "l1"]}),
        r"clusterings, entry 2: normalize is 'l1', which is unknown\. Allowed: l2, none\.",
    ),
    (
        lambda c: c["clusterings"][1].update(space="functional", grid={"space": ["readout"]}),
        r"clusterings, entry 2: space is in the entry itself and in grid; leave it out of one of them\.",
    ),
    (
        lambda c: c["clusterings"][1].update(grid={"n_clusters": [3]}),
        r"clusterings, entry 2: n_clusters is a key of the entry itself, not a setting; remove it from the grid\.",
    ),
    (
        lambda c: c["clusterings"][1].update(grid={"spaces": ["readout", "functional"]}),
        r"clusterings, entry 2: kmeans has no setting 'spaces'\. Did you mean 'space'\?",
    ),
    (lambda c: c["clusterings"][1].update(grid={"space": "functional"}), r"grid must give each setting a list"),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES)
def test_mistakes(change, message):
    with pytest.raises(SettingsError, match=message):
        parse_sweep(changed(change))


def test_the_settings_of_a_clustering_can_be_a_grid():
    grid = {"space": ["readout", "functional"], "normalize": ["none", "l2"]}
    sweep = parse_sweep(changed(lambda c: c["clusterings"][1].update(n_clusters=[4, 5], grid=grid)))
    found = [entry for entry in sweep.clusterings if entry.method == "kmeans"]
    assert len(found) == 8
    assert found[0] == ClusteringEntry("kmeans", 4, {"n_init": 5, "space": "readout", "normalize": "none"})
    assert found[-1] == ClusteringEntry("kmeans", 5, {"n_init": 5, "space": "functional", "normalize": "l2"})


def test_the_neurons_of_a_clustering_can_be_a_grid():
    grid = {"minimum_test_correlation": [None, 0.3]}
    sweep = parse_sweep(changed(lambda c: c["clusterings"][1].update(n_clusters=4, grid=grid)))
    found = [entry for entry in sweep.clusterings if entry.method == "kmeans"]
    assert [entry.settings["minimum_test_correlation"] for entry in found] == [None, 0.3]
    text = r"clusterings, entry 2: minimum_test_correlation is 1\.5, but must be a test correlation from -1 to 1"
    with pytest.raises(SettingsError, match=text):
        parse_sweep(changed(lambda c: c["clusterings"][1].update(minimum_test_correlation=1.5)))


def test_the_vectors_of_a_clustering_can_be_aligned():
    grid = {"alignment": [None, {}, {"schedule": "paper"}]}
    sweep = parse_sweep(changed(lambda c: c["clusterings"][1].update(n_clusters=4, grid=grid)))
    found = [entry for entry in sweep.clusterings if entry.method == "kmeans"]
    assert [entry.settings["alignment"] for entry in found] == [None, {}, {"schedule": "paper"}]
    for wrong, text in [
        ("ramp", r"clusterings, entry 2: alignment is 'ramp'; it must be a mapping with keys of schedule, power"),
        ({"power": 3}, r"clusterings, entry 2: alignment: power is 3, but must be 1 or 2\."),
        ({"metric": 1}, r"clusterings, entry 2: alignment: there is no setting 'metric'\. Allowed: beta, control"),
    ]:
        with pytest.raises(SettingsError, match=text):
            parse_sweep(changed(lambda c, wrong=wrong: c["clusterings"][1].update(alignment=wrong)))


def test_a_file_that_is_not_there_or_not_yaml(tmp_path):
    with pytest.raises(SettingsError, match=r"the sweep .*missing\.yaml cannot be read: No such file"):
        load_sweep(tmp_path / "missing.yaml")
    (tmp_path / "bad.yaml").write_text("seeds: [1")
    with pytest.raises(SettingsError, match=r"bad\.yaml is not valid YAML"):
        load_sweep(tmp_path / "bad.yaml")
    (tmp_path / "text.yaml").write_text("seeds")
    with pytest.raises(SettingsError, match=r"text\.yaml:1:1: a sweep is a mapping with the sections seeds, datasets"):
        load_sweep(tmp_path / "text.yaml")


def test_what_is_stored_of_a_sweep_stays_byte_for_byte_the_same(tmp_path: Path) -> None:
    """Entries that were registered before must be found again: by nnfabrik's hashes and by those of this package."""
    from nnfabrik.utility.dj_helpers import make_hash

    from december_plugin.clustering.methods import canonical_settings
    from december_plugin.schemas.clusters import clustering_hash
    from december_plugin.schemas.nulls import surrogate_row

    path = tmp_path / "sweep.yaml"
    path.write_text(STORED, encoding="utf-8")
    sweep = load_sweep(path, folder="/recordings")
    entries = [entry for section in (sweep.datasets, sweep.models, sweep.trainers) for entry in section]
    assert {entry.comment: make_hash(entry.config) for entry in entries} == STORED_HASHES
    assert [
        clustering_hash(each.method, each.n_clusters, canonical_settings(each.method, each.settings))
        for each in sweep.clusterings
    ] == STORED_CLUSTERINGS
    rows = [surrogate_row(**dataclasses.asdict(each)) for each in sweep.surrogates]
    assert [(row["surrogate_hash"], row["surrogate_name"]) for row in rows] == STORED_SURROGATES


STORED = """\
seeds: [1, 2]
datasets:
  - {fn: december_plugin.datasets.static_loaders, comment: images, config: {paths: [a, b], batch_size: 32, scale: 0.5}}
models:
  - {fn: december_plugin.models.stacked_core_gaussian_readout, comment: model, config: {gamma_readout: 1e-2, layers: 2}}
trainers:
  - {fn: december_plugin.trainers.december_trainer, comment: "K {n_clusters}, strength {strength}",
     config: {pretrain_epochs: 5, lr_init: 1, scale_bounds: [1, 2.0]}, grid: {n_clusters: [2, 3], strength: [auto, 1]}}
  - {fn: december_plugin.trainers.december_trainer, comment: published,
     config: {preset: published, n_clusters: 4, strength: 1e5}}
clusterings:
  - {method: gmm, n_clusters: [2, 3], tol: 1, reg_covar: 1e-3}
  - {method: t_mixture, n_clusters: 2, scale_bounds: [1, 2], dof: 3}
surrogates:
  - {n_draws: 99}
  - {name: plain, method: gaussian, seed: 3, clusterings: [kmeans, december, kmeans]}
"""

STORED_HASHES = {
    "images": "4828b8ce75a3e8c8a0509c73b75bc55f",
    "model": "9747f9bfda8c532be26b255d2372d17c",
    "K 2, strength auto": "0dddab82e3c1980017764c385659d883",
    "K 2, strength 1": "e106a001329023771e50969ee44bfee2",
    "K 3, strength auto": "dc8a8c00a585233fb337e41e72144ccc",
    "K 3, strength 1": "49f5e2c36ee6690dea507aaebf3f308e",
    "published": "09e94eb1da02f4e461f5c4a8f751a6ed",
}
STORED_CLUSTERINGS = [
    "835cf3c4a14ff300ee5fc2ff973c08a3",
    "e926d44d0a59389ed886d8504125e2fb",
    "6646049eb482a0ecb0d7100f7b0591f0",
]
STORED_SURROGATES = [
    ("a1ac3fb4a7f83e3cbc1bcc5febd655a1", "elliptical, 99 draws"),
    ("4a8f3038adb48fdd16f848717a6d319c", "plain"),
]


def test_a_method_that_finds_the_number_of_clusters_is_given_none():
    found = parse_sweep(changed(lambda c: c["clusterings"].append({"method": "hdbscan", "min_cluster_size": 9})))
    assert found.clusterings[-1] == ClusteringEntry("hdbscan", 0, {"min_cluster_size": 9})
