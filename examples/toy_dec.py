"""Why DECEMber has scales: the toy experiment of the paper's Figure 2.

2,500 linear neurons respond to two-dimensional stimuli, ``r_i(x) = <w_i, x> + noise``. Their weights form two groups
of 2,000 and 500 neurons around (-0.1, -0.1) and (0.1, 0.1), SD 0.04. The weights are learned by linear regression, and
then nothing but a clustering loss goes on. The unit scale of classic deep embedded clustering (DEC) is far wider than
the distance of the groups, 0.283: with the gradient flowing through its target, the centres collapse to one point; with
a constant target they fly apart. DECEMber learns the scales and keeps the groups either way.

    python examples/toy_dec.py --output figures
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from december_plugin.clustering import DECEMber, VanillaDEC
from december_plugin.plots import save_figure, toy_figure

GROUPS = ((2000, (-0.1, -0.1)), (500, (0.1, 0.1)))
WEIGHT_SD = 0.04
N_STIMULI = 8000
NOISE_SD = 0.1
EPOCHS = 25
STEPS = 100
LEARNING_RATES = {"DEC": 1e-3, "DECEMber": 1e-4}


@dataclass(frozen=True)
class Run:
    """One clustering run: a curve and where it ended."""

    method: str
    target: str
    distances: np.ndarray  # (steps + 1,) between the two centres
    weights: np.ndarray  # (N, 2)
    centers: np.ndarray  # (2, 2)
    labels: np.ndarray  # (N,)
    ari: float


def planted_weights(seed: int) -> tuple[Tensor, np.ndarray]:
    """Draw the neurons' true weights (N, 2) and their groups (N,)."""
    rng = np.random.default_rng(seed)
    weights = np.concatenate([rng.normal(center, WEIGHT_SD, (n, 2)) for n, center in GROUPS])
    groups = np.repeat(range(len(GROUPS)), [n for n, _ in GROUPS])
    return torch.from_numpy(weights).float(), groups


def learn_weights(true_weights: Tensor, seed: int, *, epochs: int = EPOCHS, batch_size: int = 400) -> Tensor:
    """Learn the weights (N, 2) from stimuli and noisy responses by stochastic gradient descent on the squared error."""
    generator = torch.Generator().manual_seed(seed)
    stimuli = torch.randn(N_STIMULI, 2, generator=generator)
    responses = stimuli @ true_weights.T
    responses += NOISE_SD * torch.randn(responses.shape, generator=generator)
    weights = torch.zeros_like(true_weights)
    for epoch in range(epochs):
        for batch in torch.randperm(N_STIMULI, generator=generator).split(batch_size):
            errors = stimuli[batch] @ weights.T - responses[batch]
            # A falling rate averages the noise of the batches away.
            weights -= 0.1 / (1 + epoch) * errors.T @ stimuli[batch] / len(batch)
    return weights


def cluster(method: str, weights: Tensor, groups: np.ndarray, *, detach_target: bool, seed: int, steps: int) -> Run:
    """Minimise nothing but the clustering loss, starting at ``weights``."""
    weights = weights.clone().requires_grad_()
    module = {"DEC": VanillaDEC, "DECEMber": DECEMber}[method](2, 2, detach_target=detach_target)
    module.initialize(weights, seed=seed)
    optimizer = torch.optim.SGD([weights, *module.parameters()], lr=LEARNING_RATES[method])
    distances = []

    def centers() -> Tensor:
        return (module.centers if method == "DEC" else module.mixture.centers).detach()

    for _ in range(steps):
        distances.append(float(torch.pdist(centers())))
        optimizer.zero_grad()
        module.loss(weights).backward()
        module.m_step(weights)
        optimizer.step()
    distances.append(float(torch.pdist(centers())))
    labels = module.assign(weights)[0].numpy()
    return Run(
        method=method,
        target="constant" if detach_target else "gradient flows",
        distances=np.array(distances),
        weights=weights.detach().numpy(),
        centers=centers().numpy(),
        labels=labels,
        ari=adjusted_rand_score(groups, labels),
    )


def experiment(seed: int, *, epochs: int = EPOCHS, steps: int = STEPS) -> tuple[Tensor, np.ndarray, list[Run]]:
    """Learn the weights, then run both losses with both kinds of target; return weights, groups and runs."""
    true_weights, groups = planted_weights(seed)
    weights = learn_weights(true_weights, seed, epochs=epochs)
    runs = [
        cluster(method, weights, groups, detach_target=detach, seed=seed, steps=steps)
        for method in LEARNING_RATES
        for detach in (False, True)
    ]
    return weights, groups, runs


def table(runs: Sequence[Run]) -> str:
    """Lay out centre distances and agreement with the planted groups."""
    lines = [f"{'loss':<10}{'target':<16}{'distance at start':>18}{'at the end':>12}{'ARI':>8}"]
    for run in runs:
        start, end = run.distances[[0, -1]]
        lines.append(f"{run.method:<10}{run.target:<16}{start:>18.4f}{end:>12.4f}{run.ari:>8.3f}")
    return "\n".join(lines)


def frames(weights: Tensor, groups: np.ndarray, runs: Sequence[Run]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what the figure shows: weights by stage, and the distance of the centres over the steps."""
    stages = [_points("learned weights", "neuron", weights.numpy(), groups)]
    for run in runs:
        if run.target == "gradient flows":
            stages.append(_points(f"after {run.method}", "neuron", run.weights, run.labels))
            stages.append(_points(f"after {run.method}", "center", run.centers, np.arange(len(run.centers))))
    distances = [
        pd.DataFrame({"method": run.method, "target": run.target, "step": step, "distance": run.distances})
        for run in runs
        for step in [np.arange(len(run.distances))]
    ]
    return pd.concat(stages, ignore_index=True), pd.concat(distances, ignore_index=True)


def _points(stage: str, kind: str, points: np.ndarray, groups: np.ndarray) -> pd.DataFrame:
    columns = {"weight_1": points[:, 0], "weight_2": points[:, 1], "group": groups}
    return pd.DataFrame({"stage": stage, "kind": kind, **columns})


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("figures"), help="folder for toy_dec.png, .svg and .pdf")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, stimuli, noise and k-means")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="epochs of the regression (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="clustering steps (default: %(default)s)")
    arguments = parser.parse_args(argv)
    weights, groups, runs = experiment(arguments.seed, epochs=arguments.epochs, steps=arguments.steps)
    print(table(runs))
    planted = float(np.linalg.norm(np.subtract(GROUPS[0][1], GROUPS[1][1])))
    figure = toy_figure(*frames(weights, groups, runs), planted=planted)
    paths = save_figure(figure, arguments.output, "toy_dec", ("png", "svg", "pdf"))
    print(f"Figures: {', '.join(map(str, paths))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
