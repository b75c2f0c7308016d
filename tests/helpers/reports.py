"""Frames of a small, made-up lab, as the queries return them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pandas as pd

from december_plugin.evaluation.cluster_functions import cluster_blocks
from december_plugin.evaluation.methods import Method
from december_plugin.findings.aligned_vectors import AlignedVectors
from december_plugin.findings.cluster_functions import FunctionalBlocks, PreferredImages
from december_plugin.findings.data import Analysis, Confusion, Embedding, MissingItem, ReportData, SelectedConfiguration
from december_plugin.rotation.simulation import simulated_readouts
from december_plugin.text.entry_names import complete_settings

KEY = ("dataset_fn", "dataset_hash", "model_fn", "model_hash", "trainer_fn", "trainer_hash", "clustering_hash")
# Method, role, label, trainer, strength, and how far its agreement lies above that of the t mixture.
METHODS = (
    ("december", "december", "DECEMber, strength auto", "dauto", 1.2, 0.0),
    ("december", "december", "DECEMber, strength 100", "d100", 100.0, 0.1),
    ("kmeans", "baseline", "k-means", "base", np.nan, -0.02),
    ("t_mixture", "baseline", "t mixture", "base", np.nan, 0.0),
    ("kmeans", "control", "k-means, end of pretraining", "ctrl", np.nan, 0.05),
)
COUNTS = (4, 6, 8)
BASELINE, DECEMBER = (f"december_plugin.trainers.{name}_trainer" for name in ("baseline", "december"))
FN = {"december": DECEMBER, "baseline": BASELINE, "control": BASELINE}
CRITERIA = ("heldout_log_likelihood", "bic", "silhouette")


def agreement(**changes: Any) -> pd.DataFrame:
    rows = []
    for count in COUNTS:
        for method, role, label, trainer, strength, more in METHODS:
            is_december = method == "december"
            rows.append(
                {
                    "method": method,
                    "n_clusters": count,
                    "trainer_role": role,
                    "strength": strength,
                    "strength_setting": label.rsplit(" ", 1)[-1] if is_december else "",
                    "gradient_ratio": (0.9 if strength == 100 else 0.01) if is_december else np.nan,
                    "locked_in": float(strength == 100) if is_december else np.nan,
                    "pretrain_epochs": 20,
                    "n_models": 3,
                    "n_left_out": 0.0,
                    "agreement_mean": 0.9 - 0.05 * count + more,
                    "agreement_sd": 0.02,
                    "n_pairs": 3,
                    "types_agreement_mean": 0.7 + 0.01 * count,
                    "types_agreement_sd": 0.01,
                    "test_correlation_mean": 0.42 if role != "control" else 0.40,
                    "test_correlation_sd": 0.004,
                    "trainer_comment": label if is_december else "",
                    "label": label,
                    "identity": Method(method, role, label.rpartition("strength ")[2] if is_december else ""),
                    **dict(
                        zip(KEY, ("d", "d" * 32, "m", "m" * 32, FN[role], trainer, f"{method}{count}"), strict=True)
                    ),
                }
            )
    return pd.DataFrame(rows).assign(**changes)


def performance(*, n_untested: float = 1) -> pd.DataFrame:
    """Return what ``performance_table`` says, with labels; the control's dataset has no repeats."""
    rows = [
        ("k-means / t mixture", "base", 0.42, 0.55, 0.61, 0.8, 0.76, 0.58),
        ("k-means, end of pretraining", "ctrl", 0.40, *[np.nan] * 5),
    ]
    scores = (
        "test_correlation_mean",
        "single_trial_ceiling",
        "correlation_to_average_mean",
        "average_ceiling",
        "normalized_correlation_mean",
        "feve_mean",
    )
    frame = pd.DataFrame(rows, columns=["label", "trainer_hash", *scores])
    frame["test_correlation_sd"] = [0.01, np.nan]
    spread = {f"{name}_sd": np.nan for name in ("average", "normalized", "feve")}
    counts = {
        "n_tested_neurons": 1030,
        "n_constant_neurons": 2,
        "n_repeated_neurons": 1030,
        "n_explainable_neurons": 640,
    }
    sessions = {"n_tested_sessions": 2, "n_untested_sessions": n_untested}
    return frame.assign(trainer_fn=BASELINE, n_models=3, **spread, **counts, **sessions)


def trainer_settings(**changes: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Complete settings of the trainers above; ``changes`` by the name of a trainer."""
    same = {"max_iter": 30, "pretrain_epochs": 20}
    given = {
        "dauto": (DECEMBER, {**same, "strength": "auto"}),
        "d100": (DECEMBER, {**same, "strength": 100.0}),
        "base": (BASELINE, same),
        "ctrl": (BASELINE, {**same, "stop_after_pretraining": True}),
    }
    return {
        (function, name): complete_settings(function, {**config, **changes.get(name, {})})
        for name, (function, config) in given.items()
    }


def pairs(table: pd.DataFrame) -> pd.DataFrame:
    """Three pairs of seeds with the mean and the standard deviation of each configuration."""
    return pd.concat(
        table[list(KEY)].assign(seed_a=a, seed_b=b, agreement=table["agreement_mean"] + shift * table["agreement_sd"])
        for (a, b), shift in (((1, 2), -1), ((1, 3), 0), ((2, 3), 1))
    )


def tested(table: pd.DataFrame) -> pd.DataFrame:
    trained = table.drop_duplicates([name for name in KEY if name != "clustering_hash"])
    return pd.concat(
        trained[list(KEY[:-1])].assign(seed=seed, test_correlation=trained["test_correlation_mean"])
        for seed in (1, 2, 3)
    )


def nulls(
    table: pd.DataFrame, *, p_value: float = 0.4, n_draws: int = 100, valleys_p_value: float = np.nan
) -> pd.DataFrame:
    rows = table[[*KEY, "method", "n_clusters", "trainer_role", "label", "identity", "agreement_mean"]].copy()
    low = rows["agreement_mean"] - 0.03 if p_value > 0.05 else rows["agreement_mean"] - 0.3
    return rows.assign(
        surrogate_name="elliptical",
        null_mean=low + 0.02,
        null_sd=0.01,
        null_low=low,
        null_high=low + 0.05,
        n_draws=n_draws,
        n_pairs=3,
        p_value=p_value,
        valleys_mean=0.4,
        null_valleys_mean=0.2,
        valleys_p_value=valleys_p_value,
    )


def counts(table: pd.DataFrame) -> pd.DataFrame:
    rows = table[
        [
            *KEY,
            "method",
            "n_clusters",
            "trainer_role",
            "label",
            "identity",
            "n_models",
            "agreement_mean",
            "agreement_sd",
        ]
    ].copy()
    for name in CRITERIA:
        rows[f"{name}_mean"], rows[f"{name}_sd"] = -((rows["n_clusters"] - 6.0) ** 2), 0.1
    above = {"above_null_mean": 0.2, "above_null_sd": 0.01, "p_value": 0.01, "n_draws": 100}
    return rows.assign(trainer_settings="", clustering_settings="", n_pairs=3, heldout_log_likelihood_se=0.1, **above)


def choices(table: pd.DataFrame, *, picked: float = np.nan, low: float | None = None, **changes: Any) -> pd.DataFrame:
    rows = table[["trainer_fn", "trainer_role", "method", "label"]].drop_duplicates("label").reset_index(drop=True)
    none, says = "none: best at the largest K that was tried, 8", f"{picked:g}"
    values: dict[str, Any] = {}
    for name in ("agreement", "heldout_log_likelihood", "bic", "silhouette"):
        picks = name in ("agreement", "bic") and not np.isnan(picked)
        values |= {name: picked if picks else np.nan, f"{name}_says": says if picks else none}
        values |= {f"{name}_low": picked if picks else 8, f"{name}_high": picked if picks else 8}
    words = "No criterion picks a number of clusters." if np.isnan(picked) else f"Two criteria pick K = {picked:g}."
    agreed = {"count": picked, "count_low": picked if low is None else low, "count_high": picked}
    looks = {"n_criteria": 4, "n_picks": 0 if np.isnan(picked) else 2, "agreeing": "agreement, bic"}
    return rows.assign(smallest=4, largest=8, n_counts=3, statement=words, **(values | agreed | looks | changes))


def neurons(n: int = 60, *, n_clusters: int = 6) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    cluster = np.arange(n) % n_clusters
    return pd.DataFrame(
        {
            "data_key": np.where(np.arange(n) < n // 2, "first", "second"),
            "unit_id": np.arange(n) * 3 + 7,
            "cluster": cluster,
            "stability": rng.choice([1 / 3, 2 / 3, 1.0], n),
            "n_seeds": 3,
            "confidence": rng.uniform(0.5, 1.0, n),
            "test_correlation": rng.uniform(0.2, 0.6, n),
            "type": np.where(np.arange(n) % 5 == 0, None, np.char.add("type ", (cluster % 3).astype(str))),
        }
    )


def chosen(frame: pd.DataFrame | None = None, **changes: Any) -> SelectedConfiguration:
    frame = neurons() if frame is None else frame
    found = SelectedConfiguration("DECEMber, strength auto", 6, "K = 6, as asked for", 3, (1, 2, 3), frame)
    return replace(found, **changes)


def embedding(frame: pd.DataFrame) -> Embedding:
    points = np.random.default_rng(1).normal(size=(len(frame), 2))
    drawn = frame[["data_key", "unit_id"]].assign(x=points[:, 0], y=points[:, 1])
    return Embedding(drawn, seed=1, n_neurons=len(frame), perplexity=30.0, max_per_session=2000)


def confusion() -> Confusion:
    frame = pd.DataFrame([[9, 1], [2, 8], [0, 3]], index=pd.Index([2, 0, 1], name="cluster"), columns=["ON", "OFF"])
    frame.attrs = {"accuracy": 17 / 23, "n_seeds": 3, "n_unlabelled": 4.0}
    return Confusion("DECEMber, strength auto", 6, "by hand", frame)


def functions(n: int = 6, **changes: Any) -> FunctionalBlocks:
    """Clusters of which two and three respond alike."""
    common = np.array([0, 1, 0, 2, 1, 1] * n)[:n]
    correlations = np.where(common[:, None] == common, 0.8, 0.2) + 0.2 * np.eye(n)
    found = FunctionalBlocks(
        title="DECEMber, strength auto, K = 6, seed 1",
        responses="images",
        n_orientations=8,
        n_images=1200,
        clusters=np.arange(n),
        sizes=np.full(n, 10),
        correlations=correlations,
        blocks=cluster_blocks(correlations),
    )
    return replace(found, **changes)


def preferred(n: int = 6, **changes: Any) -> PreferredImages:
    """Gratings of a frequency for each cluster, at all orientations, compared with each other."""
    rng = np.random.default_rng(5)
    clusters = np.repeat(np.arange(n), 10)
    y, x = np.mgrid[-9:9, -16:16]
    images = []
    for cluster in clusters:
        turn = rng.uniform(0, np.pi)
        wave = np.cos((0.3 + 0.1 * cluster) * (x * np.cos(turn) + y * np.sin(turn)))
        images.append(wave * np.exp(-(x**2 + y**2) / 18))
    rows = {"cluster": clusters, "test_correlation": rng.uniform(0.6, 0.9, 10 * n), "response": 2.0}
    placed = rng.normal(size=(n, 2))[clusters] + 0.1 * rng.normal(size=(10 * n, 2))
    found = PreferredImages(
        title="DECEMber, strength auto, K = 6, seed 1",
        neurons=pd.DataFrame(rows).assign(ending="converged"),
        images=np.array(images, dtype=np.float32)[:, None],
        grey=0.0,
        norm=12.0,
        n_models=1,
        sizes=dict.fromkeys(range(n), 1234),
        islands=pd.DataFrame({"x": placed[:, 0], "y": placed[:, 1], "cluster": clusters}),
        blocks=functions(n).block_of,
        compared=pd.DataFrame({"cluster": clusters}),
        responses=np.where(clusters[:, None] == clusters, 0.9, 0.25) + 0.1 * np.eye(10 * n),
    )
    return replace(found, **changes)


def alignments(**changes: Any) -> pd.DataFrame:
    """Alignments of three seeds, as ``alignments`` of the results has them, and one control."""
    rows = [("aligned", "none", seed, 12.0 + seed, 0.95) for seed in (1, 2, 3)]
    rows.append(("aligned (features permuted in every neuron)", "features", 1, 18.0, 1.2))
    frame = pd.DataFrame(rows, columns=["phrase", "control", "seed", "temperature", "alignment_loss"])
    label = "equivariant core, gaussian readout, " + frame["phrase"]
    numbers = {"loss_before": 1.38, "ambiguous_share": 0.31, "equivariance_error": 2e-6, "n_orientations": 8}
    return frame.assign(label=label, n_neurons=60, n_zero=0, **numbers).assign(**changes)


def aligned() -> AlignedVectors:
    simulated = simulated_readouts(60, n_types=6, n_features=4, noise=0.2)
    points = np.random.default_rng(2).normal(size=(6, 2))[simulated.types]
    points = points + 0.1 * np.random.default_rng(3).normal(size=(60, 2))
    coordinates = pd.DataFrame({"x": points[:, 0], "y": points[:, 1], "group": simulated.types})
    title = "Gaussian mixture, direction, aligned, K = 6, seed 1"
    return AlignedVectors(title, simulated.readouts, -simulated.angles, 8, simulated.types, coordinates)


def functions_table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "label": "DECEMber, strength auto",
            "n_clusters": 6,
            "seed": [1, 2, 3],
            "responses": "images",
            "threshold": 0.5,
            "n_orientations": 8,
            "n_found": [6, 6, 5],
            "n_blocks": [3, 3, 4],
        }
    )


def analysis(**changes: Any) -> Analysis:
    table = agreement()
    sessions = pd.DataFrame(
        {"data_key": ["first", "second"], "n_neurons": [30, 30], "unit_ids_from": "recording", "n_test_trials": 200}
    ).assign(test_correlation=[0.41, 0.43])
    found = Analysis(
        name="two sessions, small model",
        dataset={"fn": "d", "hash": "d" * 32, "comment": "two sessions", "config": {}},
        model={"fn": "lab.models.small", "hash": "m" * 32, "comment": "small model", "config": {}},
        agreement=table,
        sessions=sessions,
        configuration=KEY,
        pairs=pairs(table),
        tested=tested(table),
        trainer_settings=trainer_settings(),
        chosen=chosen(),
        embedding=embedding(neurons()),
    )
    return replace(found, **changes)


def full_analysis(**changes: Any) -> Analysis:
    table = agreement()
    return replace(
        analysis(),
        nulls=nulls(table),
        counts=counts(table),
        choices=choices(table),
        confusions=(confusion(),),
        types_name="by hand",
        n_types=6,
        missing=(MissingItem("tuning", "There are no maximally exciting images yet."),),
        **changes,
    )


def report(*analyses: Analysis, **changes: Any) -> ReportData:
    states = ["table", "done", "running", "waiting", "failed", "poisoned", "ignored"]
    config = '{"n_clusters": 6, "pretrain_epochs": 20, "max_iter": 30}'
    trainer = "december_plugin.trainers.december_trainer"
    entries = pd.DataFrame(
        [{"kind": "trainer", "fn": trainer, "hash": "dauto", "comment": "DECEMber", "config": config}]
    )
    trainings = pd.DataFrame(
        [
            {
                "dataset_hash": "d" * 32,
                "model_hash": "m" * 32,
                "trainer_hash": "dauto",
                "seed": 1,
                "trainer_role": "december",
            }
        ]
    )
    data = ReportData(
        title="A report",
        created=datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc),
        command="december report -o report.html",
        schema="lab_schema",
        server="db.lab.org, version 8.0",
        analyses=analyses or (full_analysis(),),
        progress=pd.DataFrame([["TrainedModel", 3, 0, 0, 0, 0, 0]], columns=states),
        failures=pd.DataFrame(columns=["table", "count", "reason", "example", "job"]),
        entries=entries,
        trainings=trainings,
        known_types=pd.DataFrame(
            columns=["types_name", "source", "version", "type_names", "n_sessions", "n_neurons", "inserted"]
        ),
        versions={"Python": "3.11"},
        training_versions=pd.DataFrame(columns=["package", "version", "n_models"]),
    )
    return replace(data, **changes)
