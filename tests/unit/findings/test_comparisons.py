"""DECEMber beside its right reference: the same training but for what the comparison is about, over the same seeds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from december_plugin.findings.comparisons import loss_comparisons
from december_plugin.findings.data import Analysis
from december_plugin.text.entry_names import complete_settings
from helpers import reports as parts


def sweep(*trainers: tuple[str, dict[str, Any]], seeds: dict[str, tuple[int, ...]] | None = None) -> Analysis:
    """Return an analysis of trainers by name, at K = 6: the clusterings that each has, all with their own agreement."""
    rows, settings, pairs = [], {}, []
    for position, (name, config) in enumerate(trainers):
        is_december = name.startswith("D")
        role = "december" if is_december else "control" if config.get("stop_after_pretraining") else "baseline"
        function = parts.FN[role]
        settings[function, name] = complete_settings(function, config)
        for method in ["december"] if is_december else ["kmeans", "t_mixture"]:
            key = dict(zip(parts.KEY, ("d", "d", "m", "m", function, name, method), strict=True))
            row = {**key, "method": method, "n_clusters": 6, "trainer_role": role, "label": f"{method} of {name}"}
            row |= {"strength": config.get("strength", 1.0) if is_december else np.nan, "test_correlation_mean": 0.4}
            row |= {
                "agreement_mean": 0.5 + 0.01 * position,
                "agreement_sd": 0.02,
                "gradient_ratio": 0.01,
                "locked_in": 0.0,
            }
            rows.append(row)
            for a, b in ((1, 2), (1, 3), (2, 3)):
                if {a, b} <= set((seeds or {}).get(name, (1, 2, 3))):
                    pairs.append({**key, "seed_a": a, "seed_b": b, "agreement": 0.1 * a + 0.01 * b + 0.001 * position})
    table = pd.DataFrame(rows)
    return replace(
        parts.analysis(),
        agreement=table,
        pairs=pd.DataFrame(pairs),
        tested=parts.tested(table),
        trainer_settings=settings,
        clustering_settings={"t_mixture": {"dof": 2.1, "weights": "uniform", "scale_bounds": (1e-4, 1e4)}},
    )


def beside(analysis: Analysis, kind: str) -> dict[str, str | None]:
    frame = loss_comparisons(analysis)
    frame = frame[frame["kind"] == kind]
    names = [None if pd.isna(name) else name for name in frame["reference"]]
    return dict(zip((name.removeprefix("december of ") for name in frame["december"]), names, strict=True))


CONTROL = {"stop_after_pretraining": True}


def test_references_are_in_the_same_space() -> None:
    functional = {"space": "functional", "normalize": "l2"}
    pretrained = {"pretrain_epochs": 40}
    found = sweep(
        ("D", pretrained),
        ("D functional", {**pretrained, **functional}),
        ("base", {}),
        ("end", {"pretrain_epochs": 40, **CONTROL}),
    )
    assert beside(found, "t mixture") == {"D": "t_mixture of base", "D functional": None}
    assert beside(found, "end")["D functional"] is None
    clusterings = {name: {**found.clustering_settings.get(name, {}), **functional} for name in ("kmeans", "t_mixture")}
    moved = replace(found, clustering_settings=clusterings)
    assert beside(moved, "t mixture") == {"D": None, "D functional": "t_mixture of base"}
    assert beside(moved, "end") == {"D": None, "D functional": "kmeans of end"}


def test_references_are_of_all_neurons() -> None:
    found = sweep(("D", {"pretrain_epochs": 40}), ("base", {}))
    assert beside(found, "t mixture") == {"D": "t_mixture of base"}
    own = {**found.clustering_settings["t_mixture"], "minimum_test_correlation": 0.3}
    filtered = replace(found, clustering_settings={**found.clustering_settings, "t_mixture": own})
    assert beside(filtered, "t mixture") == {"D": None}


def test_references_are_not_aligned() -> None:
    found = sweep(("D", {"pretrain_epochs": 40}), ("base", {}))
    own = {**found.clustering_settings["t_mixture"], "alignment": {"schedule": "ramp"}}
    aligned = replace(found, clustering_settings={**found.clustering_settings, "t_mixture": own})
    assert beside(aligned, "t mixture") == {"D": None}


def test_each_pretraining_has_its_own_control() -> None:
    found = sweep(
        ("D8", {"pretrain_epochs": 8}),
        ("D14", {"pretrain_epochs": 14}),
        ("D20", {"pretrain_epochs": 20}),
        ("end14", {"pretrain_epochs": 14, **CONTROL}),
        ("end8", {"pretrain_epochs": 8, **CONTROL}),
        ("base", {}),
    )
    assert beside(found, "end") == {"D8": "kmeans of end8", "D14": "kmeans of end14", "D20": None}
    assert beside(found, "t mixture") == dict.fromkeys(("D8", "D14", "D20"), "t_mixture of base")


@pytest.mark.parametrize("setting", [{"lr_init": 0.02}, {"scale_loss": False}, {"pretrain_epochs": 9}])
def test_what_acts_before_the_end_of_the_pretraining_must_be_the_same(setting: dict[str, Any]) -> None:
    found = sweep(("D", {"pretrain_epochs": 8}), ("end", {"pretrain_epochs": 8, **CONTROL, **setting}))
    assert beside(found, "end") == {"D": None}


def test_what_acts_later_need_not_be_the_same_in_the_control() -> None:
    later = {"max_iter": 60, "patience": 9, "lr_decay_steps": 1, "verbose": False, "device": "cpu"}
    found = sweep(("D", {"pretrain_epochs": 8}), ("end", {"pretrain_epochs": 8, **CONTROL, **later}))
    assert beside(found, "end") == {"D": "kmeans of end"}


def test_of_several_controls_that_which_has_most_in_common() -> None:
    ends = [(f"end{n}", {"pretrain_epochs": 8, "max_iter": n, **CONTROL}) for n in (60, 12)]
    found = sweep(*[(f"D{n}", {"pretrain_epochs": 8, "max_iter": n}) for n in (60, 12)], *ends)
    assert beside(found, "end") == {"D60": "kmeans of end60", "D12": "kmeans of end12"}


def test_the_t_mixture_is_that_of_the_baseline_with_the_same_settings() -> None:
    found = sweep(
        ("D60", {"pretrain_epochs": 8, "max_iter": 60}),
        ("D12", {"pretrain_epochs": 8, "max_iter": 12}),
        ("Dslow", {"pretrain_epochs": 8, "max_iter": 12, "lr_init": 0.001}),
        ("Dheavy", {"pretrain_epochs": 8, "max_iter": 12, "dof": 5.0}),
        ("base12", {"max_iter": 12}),
        ("base60", {"max_iter": 60}),
        ("base60after8", {"max_iter": 60, "pretrain_epochs": 8}),
        ("base12after14", {"max_iter": 12, "pretrain_epochs": 14}),
    )
    assert beside(found, "t mixture") == {
        "D60": "t_mixture of base60after8",
        "D12": "t_mixture of base12",
        "Dslow": None,
        "Dheavy": None,
    }


def test_strength_zero_is_a_reference_with_the_same_settings_and_no_december() -> None:
    found = sweep(
        ("D8", {"pretrain_epochs": 8}),
        ("D14", {"pretrain_epochs": 14}),
        ("Dzero", {"pretrain_epochs": 8, "strength": 0.0}),
    )
    assert beside(found, "zero") == {"D8": "december of Dzero", "D14": None}


def test_only_seeds_that_both_have_are_compared() -> None:
    seeds = {"end": (1, 2), "D": (1, 2, 3)}
    trainers = (("D", {"pretrain_epochs": 8}), ("end", {"pretrain_epochs": 8, **CONTROL}))
    frame = loss_comparisons(sweep(*trainers, seeds=seeds))
    (row,) = frame[frame["kind"] == "end"].to_dict("records")
    assert (row["n_pairs"], row["result"]) == (1, "unknown")
    assert row["december_mean"] == pytest.approx(0.12)
    (row,) = frame[frame["kind"] == "zero"].to_dict("records")
    assert (row["n_pairs"], row["result"]) == (0, "none")
    whole = loss_comparisons(sweep(*trainers))
    (row,) = whole[whole["kind"] == "end"].to_dict("records")
    assert (row["n_pairs"], row["result"]) == (3, "equal")
    assert row["difference"] == pytest.approx(-0.001)
    # Pairs 0.12, 0.13, 0.23 and the same again, 0.001 higher.
    assert row["spread"] == pytest.approx(np.sqrt(2) * np.std([0.12, 0.13, 0.23], ddof=1))


def test_what_another_package_trains_is_compared_by_what_it_sets() -> None:
    found = sweep(("D", {}), ("end", {"pretrain_epochs": 1, **CONTROL}))
    table = found.agreement.assign(trainer_fn="lab.trainers.own")
    found = replace(found, agreement=table, pairs=found.pairs.assign(trainer_fn="lab.trainers.own"))
    for warmup, expected in ((3, "kmeans of end"), (4, None)):
        own = {"D": {"warmup": 3, "n_clusters": 6}, "end": {"warmup": warmup, "stop_after_pretraining": True}}
        settings = {("lab.trainers.own", name): values for name, values in own.items()}
        assert beside(replace(found, trainer_settings=settings), "end") == {"D": expected}


def test_december_beside_its_references() -> None:
    frame = loss_comparisons(parts.analysis())
    # Literal values: "auto" equals the t mixture, "100" lies 0.1 above it; both beside k-means at the end.
    rows = frame[frame["n_clusters"] == 6].set_index(["december", "reference"])
    equal = rows.loc[("DECEMber, strength auto", "t mixture")]
    assert equal["difference"] == pytest.approx(0.0)
    assert equal["spread"] == pytest.approx(0.0282843, abs=1e-6)
    assert equal["result"] == "equal"
    assert rows.loc[("DECEMber, strength 100", "t mixture")]["result"] == "more"
    assert rows.loc[("DECEMber, strength auto", "k-means, end of pretraining")]["result"] == "less"
    assert not rows.loc[("DECEMber, strength auto", "k-means, end of pretraining")]["equal_prediction"]
    assert "k-means" not in set(frame["reference"])
