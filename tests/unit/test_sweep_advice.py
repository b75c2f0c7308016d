"""What a valid sweep lacks for its results to be read."""

from __future__ import annotations

from december_plugin.sweep import ClusteringEntry, Entry, Sweep
from december_plugin.sweep_advice import advice

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
        "there is one seed, so there will be no agreement between seeds. Three are customary."
    ]


def test_missing_controls() -> None:
    other = Entry(CONTROL.fn, {**CONTROL.config, "lr_init": 0.1})
    message = (
        "no control ends with the pretraining of DECEMber (20 epochs): a baseline_trainer with stop_after_pretraining: "
        "true and the same pretrain_epochs and lr_init. Without it nobody can tell what the clustering loss has added."
    )
    assert said(DECEMBER, BASELINE, other) == [message]
    assert said(DECEMBER) == ["no baseline_trainer without clustering loss is there to compare DECEMber with.", message]


def test_missing_post_hoc_methods() -> None:
    assert said(DECEMBER, BASELINE, CONTROL, clusterings=ALL[:2]) == [
        "the clusterings have no t_mixture with n_clusters [4], which DECEMber has."
    ]
