"""What a valid sweep lacks for its results to be read."""

from __future__ import annotations

from december_plugin.sweeps.advice import advice
from december_plugin.sweeps.parse import ClusteringEntry, Entry, Sweep

ALL = tuple(ClusteringEntry(method, 4) for method in ("gmm", "kmeans", "t_mixture"))
DECEMBER = Entry("december_plugin.trainers.december_trainer", {"n_clusters": 4, "pretrain_epochs": 20})
BASELINE = Entry("december_plugin.trainers.baseline_trainer", {})
CONTROL = Entry(
    "december_plugin.trainers.baseline_trainer",
    {"stop_after_pretraining": True, "pretrain_epochs": 20, "lr_init": 0.009},
)


def said(
    *trainers: Entry, seeds: tuple[int, ...] = (1, 2), clusterings: tuple[ClusteringEntry, ...] = ALL
) -> list[str]:
    return list(advice(Sweep((), (), trainers, seeds, clusterings)))


def test_a_complete_sweep_needs_none() -> None:
    assert said(DECEMBER, BASELINE, CONTROL) == []
    assert said(BASELINE) == []


def test_one_seed() -> None:
    assert said(BASELINE, seeds=(1,)) == [
        "there is one seed, so there will be no agreement between seeds. Use at least three."
    ]


def test_missing_controls() -> None:
    other = Entry(CONTROL.fn, {**CONTROL.config, "lr_init": 0.1})
    message = (
        "no control ends with the pretraining of DECEMber (20 epochs): a baseline_trainer with stop_after_pretraining: "
        "true and the same pretrain_epochs and lr_init. Without it nobody can tell what the clustering loss has added."
    )
    assert said(DECEMBER, BASELINE, other) == [message]
    assert said(DECEMBER) == ["no baseline_trainer without clustering loss is there to compare DECEMber with.", message]


def test_post_hoc_methods_that_lack_a_number_of_clusters() -> None:
    other = Entry(DECEMBER.fn, {**DECEMBER.config, "n_clusters": 6})
    assert said(DECEMBER, other, BASELINE, CONTROL) == [
        f"the clusterings have {method}, but not with n_clusters [6], which DECEMber has."
        for method in ("gmm", "kmeans", "t_mixture")
    ]


def test_a_method_that_is_left_out_is_left_out_on_purpose() -> None:
    assert said(DECEMBER, BASELINE, CONTROL, clusterings=ALL[2:]) == []
    assert said(DECEMBER, BASELINE, CONTROL, clusterings=()) == [
        "there are no clusterings, so DECEMber will stand beside no other method. With t_mixture and the same "
        "n_clusters one sees what the clustering loss adds."
    ]
