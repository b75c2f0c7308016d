"""What a valid sweep lacks for its results to be read, and what will go wrong where its trainings run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from december_plugin.errors import SettingsError
from december_plugin.sweeps.advice import advice, missing_recordings, refused_functions
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


def test_alignments_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    aligned = (ClusteringEntry("gmm", 4, {"alignment": {}}), ClusteringEntry("gmm", 4))
    ours, theirs = Entry("december_plugin.models.equivariant_core_gaussian_readout", {}), Entry("my.equivariant", {})
    sweep = Sweep((), (theirs,), (BASELINE,), (1, 2), aligned)
    (message,) = advice(sweep)
    assert message == (
        "the sweep has 1 clustering with alignment, but no rotation-equivariant model, and only these are aligned. If "
        "your own model function has such a core, name it in DECEMBER_EQUIVARIANT_MODELS."
    )
    assert not list(advice(replace(sweep, models=(theirs, ours))))
    monkeypatch.setenv("DECEMBER_EQUIVARIANT_MODELS", "other.one, my.*")
    assert not list(advice(sweep))
    (message, *_) = advice(replace(sweep, trainers=(DECEMBER,)))
    assert message == (
        "vectors are aligned for clusterings that are fitted afterwards, but all trainers are december_trainer, whose "
        "models have their own clusters. Add a baseline_trainer."
    )
    monkeypatch.setenv("DECEMBER_EQUIVARIANT_MODELS", "my.models; --")
    with pytest.raises(
        SettingsError, match=r"has 'my\.models; --'; it must be a list of dotted names of model functions"
    ):
        list(advice(sweep))


def test_missing_controls() -> None:
    other = Entry(CONTROL.fn, {**CONTROL.config, "lr_init": 0.1})
    message = (
        "no control ends with the pretraining of DECEMber (20 epochs): a baseline_trainer with stop_after_pretraining: "
        "true and the same pretrain_epochs and lr_init. Without it you cannot tell what the clustering loss added."
    )
    assert said(DECEMBER, BASELINE, other) == [message]
    assert said(DECEMBER) == ["there is no baseline_trainer without clustering loss to compare DECEMber with.", message]


def test_post_hoc_methods_that_lack_a_number_of_clusters() -> None:
    other = Entry(DECEMBER.fn, {**DECEMBER.config, "n_clusters": 6})
    assert said(DECEMBER, other, BASELINE, CONTROL) == [
        f"the clusterings have {method}, but not with n_clusters [6], which DECEMber has."
        for method in ("gmm", "kmeans", "t_mixture")
    ]


def test_a_method_that_is_left_out_is_left_out_on_purpose() -> None:
    assert said(DECEMBER, BASELINE, CONTROL, clusterings=ALL[2:]) == []
    assert said(DECEMBER, BASELINE, CONTROL, clusterings=()) == [
        "there are no clusterings, so DECEMber will not be compared with other methods. t_mixture with the same "
        "n_clusters shows what the clustering loss adds."
    ]


# --- where trainings run ------------------------------------------------------------------------------------------


STATIC = "december_plugin.datasets.static_loaders"


def sweep(*datasets: Entry, trainer: str = "december_plugin.trainers.baseline_trainer") -> Sweep:
    model = Entry("december_plugin.models.stacked_core_gaussian_readout", {})
    return Sweep(datasets, (model,), (Entry(trainer, {}),), (1,))


def test_recordings_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "static1-2-3").mkdir()
    (tmp_path / "one").mkdir()
    paths = [str(tmp_path / name) for name in ("one", "static1-2-33", "other")]
    given = sweep(Entry(STATIC, {"paths": paths}), Entry(STATIC, {"paths": paths, "scale": 2}))
    *named, last = missing_recordings(given)
    assert named == [
        f"{paths[1]} does not exist on this machine. Did you mean {tmp_path / 'static1-2-3'}?",
        f"{paths[2]} does not exist on this machine.",
    ]
    assert last == (
        "paths are part of the dataset's entry. If one is wrong, correct it before workers start, and remove what was "
        "planned for it: `december forget`. If workers run on other machines, it must be right there."
    )
    assert list(missing_recordings(sweep(Entry(STATIC, {"paths": paths[:1]})))) == []
    # A folder whose name is no path at all, and another package's settings, of which nothing is known.
    assert next(missing_recordings(sweep(Entry(STATIC, {"paths": "a\0b"})))) == "a\0b does not exist on this machine."
    assert list(missing_recordings(sweep(Entry("os.path.join", {"paths": ["gs://bucket"]})))) == []
    many = [str(tmp_path / (f"{at}" * 9)) for at in range(8)]
    assert "3 more recordings do not exist on this machine." in list(
        missing_recordings(sweep(Entry(STATIC, {"paths": many})))
    )


def test_functions_that_workers_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DECEMBER_ALLOW_MODULES", raising=False)
    assert list(refused_functions(sweep(Entry(STATIC, {})))) == []
    assert list(refused_functions(sweep(Entry("json.load", {}), Entry("json.loads", {})))) == [
        "workers refuse json.load, json.loads until json is allowed where they run: `december worker --allow-modules "
        "json`, or DECEMBER_ALLOW_MODULES=json."
    ]
    # Defined elsewhere than it is named: both must be allowed.
    assert len(list(refused_functions(sweep(Entry("os.path.join", {}))))) == 2
    monkeypatch.setenv("DECEMBER_ALLOW_MODULES", "json")
    assert list(refused_functions(sweep(Entry("json.load", {})))) == []
