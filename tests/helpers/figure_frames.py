"""Made-up frames of every figure, as the queries return them; the numbers are shaped like those of the paper."""

import itertools

import numpy as np
import pandas as pd

from helpers.figures import identified

BASELINES = ("Gaussian mixture", "k-means", "t mixture", "k-means, end of pretraining")
STRENGTHS = ("0.01", "0.1", "1", "10", "100")
COUNTS = (20, 25, 30, 35, 40, 45, 50)


def agreement(methods=("DECEMber, strength auto", *BASELINES), counts=COUNTS, **columns):
    rng = np.random.default_rng(0)
    rows = []
    for i, method in enumerate(methods):
        level = 0.32 - 0.015 * i if method.startswith("DECEMber") else 0.2 - 0.02 * (i % 5)
        for count in counts:
            mean = level * (1 - 0.004 * (count - counts[0])) + rng.normal(scale=0.004)
            rows.append(
                {"label": method, "n_clusters": count, "agreement_mean": mean, "agreement_sd": 0.012, "n_pairs": 3}
            )
    return identified(pd.DataFrame(rows)).assign(**columns)


def toy(n=(200, 50)):
    rng = np.random.default_rng(0)
    group = np.repeat([1, 0], n)
    learned = np.where(group[:, None] == 1, -0.1, 0.1) + rng.normal(scale=0.04, size=(sum(n), 2))
    ends = {"learned weights": None, "after DEC": 0.0, "after DECEMber": 0.1}
    frames = []
    for stage, center in ends.items():
        moved = learned if center != 0 else 0.6 * learned
        neurons = pd.DataFrame({"weight_1": moved[:, 0], "weight_2": moved[:, 1], "group": group})
        frames.append(neurons.assign(stage=stage, kind="neuron"))
        if center is not None:
            at = [-center, center]
            frames.append(
                pd.DataFrame({"weight_1": at, "weight_2": at, "group": np.nan, "stage": stage, "kind": "center"})
            )
    step = np.arange(101)
    curves = {
        ("DEC", "gradient flows"): 0.283 * np.exp(-step / 15),
        ("DEC", "constant"): 0.283 + 0.01 * step,
        ("DECEMber", "gradient flows"): np.full(101, 0.283),
        ("DECEMber", "constant"): np.full(101, 0.2831),
    }
    distances = [
        pd.DataFrame({"label": method, "target": target, "step": step, "distance": distance})
        for (method, target), distance in curves.items()
    ]
    return pd.concat(frames, ignore_index=True), identified(pd.concat(distances, ignore_index=True))


def confusion(n_types=4, sizes=(78, 40, 22, 5)):
    sizes = (list(sizes) * n_types)[:n_types]
    matrix = np.diag([int(0.94 * size) for size in sizes])
    for i, size in enumerate(sizes):
        matrix[(i + 1) % n_types, i] += size - matrix[:, i].sum()
    names = ["midget OFF", "parasol OFF", "large OFF", "ON"] if n_types == 4 else [f"type {i}" for i in range(n_types)]
    return pd.DataFrame(matrix, index=pd.Index(range(3, n_types + 3), name="cluster"), columns=names)


def known_types(counts=(4,)):
    methods = ("DECEMber, strength auto", "Gaussian mixture", "k-means", "t mixture", "k-means, end of pretraining")
    frame = agreement(methods=methods, counts=counts)
    level = frame["label"].map(dict(zip(methods, (0.96, 0.8, 0.6, 0.85, 0.62), strict=True)))
    near = 1 - 0.02 * (frame["n_clusters"] - frame["n_clusters"].median()).abs()
    return frame.assign(
        types_agreement_mean=level * near,
        types_agreement_sd=0.03,
        agreement_mean=level * near + 0.02,
        agreement_sd=0.05,
    )


def strength_performance():
    methods = ["baseline", *(f"DECEMber, strength {strength}" for strength in STRENGTHS)]
    return identified(
        pd.DataFrame(
            {
                "label": methods,
                "strength": [0.0, *map(float, STRENGTHS)],
                "test_correlation_mean": [0.375, 0.374, 0.376, 0.375, 0.366, 0.318],
                "test_correlation_sd": 0.003,
                "gradient_ratio": [np.nan, 2e-5, 3e-4, 2e-3, 0.03, 0.4],
            }
        )
    )


def strength_agreement():
    methods = (*(f"DECEMber, strength {strength}" for strength in STRENGTHS), "Gaussian mixture")
    return agreement(methods=methods)


def coordinates(methods=("baseline", "DECEMber, strength 0.1", "DECEMber, strength 1"), n=300, n_groups=6):
    rng = np.random.default_rng(1)
    group = rng.integers(0, n_groups, n)
    angle = 2 * np.pi * group / n_groups
    centers = np.column_stack([np.cos(angle), np.sin(angle)])
    frames = []
    for i, method in enumerate(methods):
        points = (0.5 + i) * centers + rng.normal(scale=0.5, size=(n, 2))
        frame = pd.DataFrame({"label": method, "data_key": "mouse", "unit_id": np.arange(n) * 2, "group": group})
        frames.append(frame.assign(x=points[:, 0], y=points[:, 1]).sample(frac=1, random_state=i))
    return pd.concat(frames, ignore_index=True)


def learning_rates(strengths=(1.0,)):
    rows = []
    for strength, length, rate in itertools.product(strengths, (5, 10, 20, 40), (0.001, 0.003, 0.009, 0.027)):
        best = {5: 0.009, 10: 0.009, 20: 0.003, 40: 0.003}[length]
        value = 0.38 - 0.004 * np.log(rate / best) ** 2 - 0.005 * np.log10(strength or 1) - 0.0001 * length
        row = {"strength": strength, "pretrain_epochs": length, "learning_rate": rate}
        row |= {
            "validation_correlation_mean": value,
            "validation_correlation_sd": 0.003,
            "test_correlation_mean": value - 0.01,
            "test_correlation_sd": 0.003,
        }
        rows.append(row)
    return pd.DataFrame(rows)


def pretraining_agreement():
    frames = [
        agreement(methods=("DECEMber",), pretrain_epochs=length).assign(
            agreement_mean=lambda f, s=shift: f["agreement_mean"] + s
        )
        for length, shift in zip((5, 10, 20, 40), (-0.02, 0.05, 0.0, -0.06), strict=True)
    ]
    return pd.concat([*frames, agreement(methods=BASELINES[:1], pretrain_epochs=np.nan)], ignore_index=True)


def datasets(n=4, methods=("DECEMber, strength auto", "Gaussian mixture")):
    frames = []
    for i in range(n):
        frame = agreement(methods=methods, counts=(5, 10, 15, 20, 25, 30)).assign(dataset=f"retina {i + 1}")
        frames.append(
            frame.assign(
                n_neurons=[200, 450, 90, 320, 60, 500][i], agreement_mean=lambda f, s=0.03 * i: f["agreement_mean"] + s
            )
        )
    return pd.concat(frames, ignore_index=True)


def restarts(counts=(4,), methods=("Gaussian mixture", "k-means"), n_starts=8):
    rng = np.random.default_rng(2)
    rows = []
    for method, count in itertools.product(methods, counts):
        for a, b in itertools.combinations(range(n_starts), 2):
            ari = float(np.clip(rng.normal(0.9 if method.startswith("Gauss") else 0.7, 0.1), -0.1, 1))
            rows.append({"label": method, "n_clusters": count, "start_a": a, "start_b": b, "ari": ari})
    return identified(pd.DataFrame(rows))


def measures():
    names = ("adjusted_rand_index", "fowlkes_mallows", "v_measure")
    frames = [agreement().assign(measure=name, shift=0.12 * i) for i, name in enumerate(names)]
    frame = pd.concat(frames, ignore_index=True)
    return frame.assign(agreement_mean=frame["agreement_mean"] + frame["shift"]).drop(columns="shift")


EQUIVARIANT = (
    "DECEMber, strength auto",
    "Gaussian mixture",
    "rotation-equivariant core, Gaussian mixture",
    "rotation-equivariant core, k-means",
)


def equivariant_performance():
    methods = ("DECEMber, strength auto", "baseline", "rotation-equivariant core")
    frame = pd.DataFrame(
        {"label": methods, "test_correlation_mean": [0.375, 0.374, 0.33], "test_correlation_sd": [0.002, 0.003, 0.004]}
    )
    return identified(frame)


def nulls(methods=("DECEMber, strength auto", "Gaussian mixture", "k-means"), counts=COUNTS):
    rows = []
    for method, count in itertools.product(methods, counts):
        null = 0.17 if method.startswith("DECEMber") else 0.13
        seeds = null + 0.002 * (40 - count) + (0.02 if method.startswith("DECEMber") else 0.0)
        row = {"label": method, "n_clusters": count, "surrogate_name": "marginals", "agreement_mean": seeds}
        row |= {"null_mean": null, "null_sd": 0.01, "null_low": null - 0.02, "null_high": null + 0.02}
        rows.append(row | {"n_draws": 20, "n_pairs": 3, "p_value": 0.01 if seeds > null + 0.02 else 0.4})
    return identified(pd.DataFrame(rows))


def cluster_counts(counts=COUNTS):
    frame = agreement(methods=("DECEMber, strength auto", "Gaussian mixture", "t mixture"), counts=counts)
    k, base = frame["n_clusters"], frame["label"].map(len)
    return frame.assign(
        heldout_log_likelihood_mean=-80 + 0.05 * base - 0.01 * (k - 40) ** 2 / 10,
        heldout_log_likelihood_sd=0.2,
        bic_mean=1e5 + 500 * base + 10 * (k - 35) ** 2,
        bic_sd=400.0,
        silhouette_mean=0.1 - 0.001 * k + 0.001 * base,
        silhouette_sd=0.004,
        n_models=3,
    )


def choices():
    methods = ("DECEMber, strength auto", "Gaussian mixture", "t mixture")
    return pd.DataFrame(
        {
            "label": methods,
            "agreement": [np.nan, np.nan, np.nan],
            "heldout_log_likelihood": [40, 40, 40],
            "bic": [35, 35, np.nan],
            "silhouette": [np.nan, np.nan, np.nan],
            "statement": [
                "the held-out likelihood picks K = 40 and BIC K = 35; agreement and silhouette fall from K = 20 "
                "on and pick none.",
                "the held-out likelihood picks K = 40 and BIC K = 35; agreement and silhouette pick none.",
                "only the held-out likelihood picks a K, 40.",
            ],
        }
    )


def consensus(n=400, n_clusters=12, n_seeds=5):
    rng = np.random.default_rng(3)
    cluster = rng.integers(0, n_clusters, n)
    votes = rng.binomial(n_seeds - 1, 0.5 + 0.04 * cluster) + 1
    confidence = np.clip(0.6 + 0.35 * votes / n_seeds + rng.normal(scale=0.05, size=n), 0, 1)
    frame = pd.DataFrame({"data_key": "mouse", "unit_id": np.arange(n), "cluster": cluster})
    return frame.assign(stability=votes / n_seeds, n_seeds=n_seeds, confidence=confidence, margin=confidence - 0.2)


def calibration():
    confidence = np.linspace(0.15, 0.98, 9)
    frames = [
        pd.DataFrame({"label": method, "confidence": confidence, "accuracy": confidence**power, "n_neurons": 50})
        for method, power in (("DECEMber, strength auto", 1.3), ("Gaussian mixture", 2.2), ("t mixture", 1.1))
    ]
    return identified(pd.concat(frames, ignore_index=True)).assign(
        n_neurons=lambda f: (20 * np.exp(3 * f["confidence"])).astype(int)
    )


def tree(counts=(3, 4, 6)):
    from december_plugin.evaluation.cluster_tree import cluster_tree

    neurons = np.arange(120)
    found = cluster_tree({k: (neurons * k // 120 + (neurons % 40 == 0)) % k for k in counts})
    return {"nodes": found.nodes, "edges": found.edges}


def confusion_of_clusters(n=30, n_blocks=6):
    """Correlations between the responses of so many clusters."""
    rng = np.random.default_rng(0)
    common = rng.standard_normal((n_blocks, 40))[rng.integers(n_blocks, size=n)]
    return np.corrcoef(common + 0.5 * rng.standard_normal((n, 40)))


def alignments():
    """Diagnostics of three seeds, with both controls."""
    names = {
        "none": "",
        "features": ", features permuted within neurons",
        "neurons": ", features permuted across neurons",
    }
    rows = [
        {
            "label": f"Gaussian readout, rotation-equivariant core, aligned{name}",
            "control": control,
            "loss_before": 1.38,
            "alignment_loss": loss + 0.01 * seed,
            "temperature": 14.0 + seed,
            "ambiguous_share": 0.3,
        }
        for (control, name), loss in zip(names.items(), (1.05, 1.2, 1.25), strict=True)
        for seed in range(3)
    ]
    return pd.DataFrame(rows)


def islands(labels=("aligned", "features permuted within neurons", "features permuted across neurons")):
    """t-SNE coordinates with clusters, a panel for each label."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(12), 20)
    points = rng.uniform(-10, 10, (12, 2))[group] + rng.standard_normal((240, 2))
    frame = pd.DataFrame({"x": points[:, 0], "y": points[:, 1], "group": group})
    return pd.concat([frame.assign(label=label) for label in labels], ignore_index=True)
