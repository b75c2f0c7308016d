"""Names: a comment where comments differ, the settings that differ where they do not, and never a hash."""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd
import pytest

from december_plugin.results.labels import configuration_labels, in_order
from december_plugin.text.entry_names import complete_settings, entry_names, setting_words

DECEMBER = "december_plugin.trainers.december_trainer"
BASELINE = "december_plugin.trainers.baseline_trainer"


def configuration(method: str, config: dict[str, Any], comment: str = "", **more: Any) -> dict[str, Any]:
    count = config.get("n_clusters", 6)
    role = "december" if method == "december" else "control" if "stop_after_pretraining" in config else "baseline"
    return {
        **dict.fromkeys(("dataset_fn", "dataset_hash", "model_fn", "model_hash"), "x"),
        "method": method,
        "n_clusters": count,
        "trainer_role": role,
        "trainer_fn": DECEMBER if method == "december" else BASELINE,
        "trainer_hash": f"{abs(hash(str(config))):032x}",
        "trainer_comment": comment,
        "trainer_config": config,
        "clustering_hash": method,
        "clustering_settings": {},
        "clustering_description": "",
        **more,
    }


def labels(*rows: dict[str, Any]) -> list[str]:
    return configuration_labels(pd.DataFrame(list(rows)))


def test_what_is_alone_has_a_plain_name() -> None:
    assert labels(
        configuration("december", {"n_clusters": 6}, "DECEMber, strength auto"),
        configuration("december", {"n_clusters": 6, "strength": 3}, "strong"),
        configuration("kmeans", {"max_iter": 30}, "baseline"),
        configuration("kmeans", {"stop_after_pretraining": True, "pretrain_epochs": 4}, "end of pretraining"),
        configuration("t_mixture", {"max_iter": 30}),
    ) == ["DECEMber, strength auto", "DECEMber, strong", "k-means", "k-means, end of pretraining", "t mixture"]


def test_spaces_other_than_the_readout_vectors_are_named_in_words() -> None:
    direction = {"space": "functional", "normalize": "l2"}
    functional = {"clustering_settings": direction, "clustering_hash": "functional"}
    assert labels(
        configuration("december", {"n_clusters": 6}, "DECEMber, strength auto"),
        configuration("december", {"n_clusters": 6, **direction}, "DECEMber, strength auto"),
        configuration("december", {"n_clusters": 6, "strength": 3, **direction}, "DECEMber, functional, direction, 3"),
        configuration("december", {"n_clusters": 6, "strength": 3, **direction}, "strong"),
        configuration("kmeans", {}),
        configuration("kmeans", {}, **functional),
        configuration("kmeans", {"stop_after_pretraining": True}, **functional),
    ) == [
        "DECEMber, strength auto",
        "DECEMber, strength auto, functional, direction",
        "DECEMber, functional, direction, 3",
        "DECEMber, functional, direction, strong",
        "k-means",
        "k-means, functional, direction",
        "k-means, functional, direction, end of pretraining",
    ]


def test_comments_are_on_one_line_and_without_what_a_terminal_obeys() -> None:
    assert labels(
        configuration("december", {"n_clusters": 6}, "\x1b[31mDECEMber\a,\n strong"),
        configuration("kmeans", {}, "a\tb"),
        configuration("kmeans", {"max_iter": 12}, "\x1b[1ma b"),
    ) == ["DECEMber, strong", "k-means (max_iter 200)", "k-means (max_iter 12)"]
    entries = pd.DataFrame({"fn": ["f", "f"], "comment": ["\x1b[31mred", None], "config": [{}, {}]})
    assert entry_names(entries) == ["red", "f"]


def test_changed_settings_under_the_same_comment_are_named() -> None:
    rows = [
        configuration(method, {**config, "max_iter": epochs}, comment)
        for epochs in (60, 12)
        for method, comment, config in (
            ("december", "DECEMber", {"n_clusters": 6}),
            ("december", "DECEMber", {"n_clusters": 8}),
            ("gmm", "baseline", {}),
        )
    ]
    assert labels(*rows) == [
        *("DECEMber (max_iter 60)", "DECEMber (max_iter 60)", "Gaussian mixture (max_iter 60)"),
        *("DECEMber (max_iter 12)", "DECEMber (max_iter 12)", "Gaussian mixture (max_iter 12)"),
    ]


def test_a_default_that_is_left_out_is_a_value() -> None:
    assert labels(
        configuration("december", {"n_clusters": 6}, "DECEMber"),
        configuration("december", {"n_clusters": 6, "max_iter": 12}, "DECEMber"),
    ) == ["DECEMber (max_iter 200)", "DECEMber (max_iter 12)"]


def test_baselines_are_told_apart_by_comments_first_and_controls_by_their_settings() -> None:
    control = {"stop_after_pretraining": True}
    assert labels(
        configuration("kmeans", {"lr_init": 0.009}, "slow"),
        configuration("kmeans", {"lr_init": 0.02}, "fast"),
        configuration("kmeans", {**control, "pretrain_epochs": 8}, "end of 8 epochs of pretraining"),
        configuration("kmeans", {**control, "pretrain_epochs": 14}, "end of 14 epochs of pretraining"),
    ) == [
        *("k-means, slow", "k-means, fast"),
        *("k-means, end of pretraining (pretrain_epochs 8)", "k-means, end of pretraining (pretrain_epochs 14)"),
    ]


def test_settings_of_the_clustering_are_named_too() -> None:
    def gmm(**settings: Any) -> dict[str, Any]:
        return configuration("gmm", {}, clustering_settings=settings, clustering_hash=str(settings))

    assert labels(gmm(max_iter=500, seed=0), gmm(max_iter=500, seed=1), gmm(max_iter=50, seed=0)) == [
        "Gaussian mixture (clustering max_iter 500, seed 0)",
        "Gaussian mixture (clustering max_iter 500, seed 1)",
        "Gaussian mixture (clustering max_iter 50, seed 0)",
    ]


def test_values_of_a_grid_that_the_comment_leaves_out() -> None:
    grid = itertools.product((0.1, 1, "auto"), (4, 8), (0.009, 0.02), (True, False), (1, 2))
    rows = [
        configuration(
            "december",
            {"n_clusters": 6, "strength": s, "pretrain_epochs": p, "lr_init": r, "detach_target": d, "patience": n},
            "DECEMber",
        )
        for s, p, r, d, n in grid
    ]
    found = labels(*rows)
    assert len(set(found)) == 48
    assert found[0] == "DECEMber (strength 0.1, detach_target yes, lr_init 0.009, patience 1, pretrain_epochs 4)"


def test_another_function_is_named_and_not_all_its_defaults() -> None:
    own = configuration("december", {"n_clusters": 6}, "DECEMber", trainer_fn="lab.trainers.gentle")
    assert labels(own, configuration("december", {"n_clusters": 6}, "DECEMber")) == [
        "DECEMber (gentle)",
        "DECEMber (december_trainer)",
    ]
    twin = configuration("december", {"n_clusters": 6}, "DECEMber", trainer_fn="lab.old.gentle")
    assert labels(own, twin) == ["DECEMber (lab.trainers.gentle)", "DECEMber (lab.old.gentle)"]


def test_what_differs_in_nothing_is_numbered() -> None:
    written_out = configuration("december", {"n_clusters": 6, "max_iter": 200}, "DECEMber")
    assert sorted(labels(configuration("december", {"n_clusters": 6}, "DECEMber"), written_out)) == [
        "DECEMber",
        "DECEMber [2]",
    ]
    assert sorted(
        labels(
            configuration("december", {"n_clusters": 6, "max_iter": 12}, "DECEMber"),
            configuration("december", {"n_clusters": 6, "max_iter": 9}, "DECEMber"),
            configuration("december", {"n_clusters": 6, "dof": 3.0}, "DECEMber (max_iter 12)"),
        )
    ) == ["DECEMber (max_iter 12)", "DECEMber (max_iter 12) [2]", "DECEMber (max_iter 9)"]


def test_names_of_one_data_set_do_not_depend_on_others() -> None:
    other = configuration("december", {"n_clusters": 6, "max_iter": 9}, "DECEMber", dataset_hash="y")
    assert labels(configuration("december", {"n_clusters": 6}, "DECEMber"), other) == ["DECEMber", "DECEMber"]


def entries(*rows: tuple[str, str, dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["fn", "comment", "config"])


def test_data_sets_and_models() -> None:
    model = "december_plugin.models.stacked_core_gaussian_readout"
    assert entry_names(entries((model, "small", {"hidden_channels": 8}), (model, "small", {"hidden_channels": 4}))) == [
        "small (hidden_channels 8)",
        "small (hidden_channels 4)",
    ]
    assert entry_names(entries((model, "", {}), ("lab.models.other", "", {}))) == [
        "stacked_core_gaussian_readout",
        "other",
    ]
    first = ["/data/of/the/lab/recordings/static1-2-3", "/data/of/the/lab/recordings/static4-5-6"]
    second = [first[0], "/data/of/the/lab/recordings/static7-8-9"]
    assert entry_names(entries(("d", "mice", {"paths": first}), ("d", "mice", {"paths": second}))) == [
        "mice (paths static4-5-6)",
        "mice (paths static7-8-9)",
    ]
    nested = entries(("d", "mice", {"crop": {"x": 1, "y": 2}}), ("d", "mice", {"crop": {"x": 1, "y": 3}}))
    assert entry_names(nested) == ["mice (crop.y 2)", "mice (crop.y 3)"]
    assert entry_names(entries(("d", "mice", {}), ("d", "mice", {"n": 3}))) == ["mice (n default)", "mice (n 3)"]


def test_complete_settings_have_the_defaults_of_our_functions() -> None:
    assert complete_settings(BASELINE, {"max_iter": 3})["lr_init"] == 0.009
    assert complete_settings(BASELINE, {"max_iter": 3})["max_iter"] == 3
    assert complete_settings("lab.trainer", {"a": 1}) == {"a": 1}
    assert complete_settings("december_plugin.trainers.gone", None) == {}


def test_a_preset_is_one_setting_in_a_name_and_all_its_values_in_a_comparison() -> None:
    preset = {"n_clusters": 6, "strength": 1.0, "preset": "published"}
    assert labels(
        configuration("december", preset, "DECEMber"),
        configuration("december", {"n_clusters": 6, "strength": 1.0}, "DECEMber"),
    ) == ["DECEMber (preset published)", "DECEMber (preset none)"]
    assert complete_settings(DECEMBER, preset)["pretrain_early_stopping"] is True
    assert complete_settings(DECEMBER, {**preset, "preset": "unknown"})["preset"] == "unknown"


@pytest.mark.parametrize(
    ("value", "words"),
    [(True, "yes"), (None, "none"), (0.009, "0.009"), (3, "3"), ("auto", "auto"), ((1, 2.5), "1, 2.5"), ([], "none")],
)
def test_values_in_words(value: Any, words: str) -> None:
    assert setting_words(value) == words


def test_order_of_presentation() -> None:
    table = pd.DataFrame(
        {
            "dataset_hash": "d",
            "model_hash": "m",
            "n_clusters": [8, 4, 4, 4, 4],
            "trainer_role": ["december", "control", "baseline", "december", "december"],
            "label": ["a", "k-means, end of pretraining", "k-means", "strong", "gentle"],
            "gradient_ratio": [0.01, None, None, 0.9, 0.01],
        }
    )
    ordered = in_order(table)
    assert ordered["label"].tolist() == ["gentle", "strong", "k-means", "k-means, end of pretraining", "a"]
    assert list(ordered.columns) == list(table.columns)


def test_functions_are_imported_only_where_something_is_to_be_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("december_plugin.text.entry_names._own_function", lambda name: asked.append(name))
    rows = [
        configuration(method, {**config, "max_iter": 12}, comment)
        for method, comment, config in (
            ("december", "DECEMber", {"n_clusters": 6}),
            ("december", "DECEMber", {"n_clusters": 8}),
            ("gmm", "baseline", {}),
        )
    ]
    assert labels(*rows) == ["DECEMber", "DECEMber", "Gaussian mixture"]
    assert entry_names(pd.DataFrame({"fn": ["a.b", "a.b"], "comment": ["one", "two"], "config": [{}, {}]})) == [
        "one",
        "two",
    ]
    assert asked == []
    labels(*rows, configuration("december", {"n_clusters": 6, "max_iter": 13}, "DECEMber"))
    assert asked
