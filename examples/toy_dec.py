"""Why DECEMber has scales: the toy experiment of the paper's Figure 2, in both of its versions.

Linear neurons respond to two-dimensional stimuli, ``r_i(x) = <w_i, x> + noise``. Their weights form two groups around
(-0.1, -0.1) and (0.1, 0.1), SD 0.04. The weights are learned by linear regression; then a clustering loss is minimised.
The unit scale of classic deep embedded clustering (DEC) is far wider than the distance of the groups, 0.283: with the
gradient flowing through its target, the centres collapse to one point; with a constant target they fly apart. DECEMber
learns the scales and keeps the groups either way.

``first``, the paper's earlier text: 2,000 and 500 neurons, 8,000 stimuli, 25 epochs of regression, and then nothing but
the clustering loss. ``camera-ready``: 700 and 300 neurons, 1,100 stimuli, signal to noise ratio (of variances) 2, 30
epochs, and then 30 epochs of squared error and clustering loss together, in the same batches. Where the texts are
silent (batches, learning rates, which group is which, that the squared error is summed over neurons), the choice is
this script's.

    python examples/toy_dec.py --output figures
    python examples/toy_dec.py --version camera-ready --output figures
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from december_plugin.clustering.losses import DECEMber, VanillaDEC
from december_plugin.evaluation.methods import Method
from december_plugin.plots import save_figure, toy_figure

CENTERS = ((-0.1, -0.1), (0.1, 0.1))
WEIGHT_SD = 0.04
LEARNING_RATES = {"DEC": 1e-3, "DECEMber": 1e-4}


@dataclass(frozen=True, kw_only=True)
class Toy:
    """One version of the experiment."""

    sizes: tuple[int, int]  # neurons of the two groups
    n_stimuli: int
    noise_sd: float | None = None  # None: from the signal to noise ratio
    snr: float | None = None  # variance of the signal, over all neurons and stimuli, by that of the noise
    epochs: int  # of the regression
    batch_size: int
    steps: int  # of the clustering
    joint: bool  # whether the squared error is minimised along with the clustering loss


VERSIONS = {
    "first": Toy(sizes=(2000, 500), n_stimuli=8000, noise_sd=0.1, epochs=25, batch_size=400, steps=100, joint=False),
    "camera-ready": Toy(sizes=(700, 300), n_stimuli=1100, snr=2.0, epochs=30, batch_size=100, steps=330, joint=True),
}


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


def planted_weights(toy: Toy, seed: int) -> tuple[Tensor, np.ndarray]:
    """Draw the neurons' true weights (N, 2) and their groups (N,)."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(center, WEIGHT_SD, (n, 2)) for n, center in zip(toy.sizes, CENTERS, strict=True)]
    return torch.from_numpy(np.concatenate(weights)).float(), np.repeat(range(len(CENTERS)), toy.sizes)


def record(toy: Toy, true_weights: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw stimuli (M, 2) and the neurons' noisy responses (M, N)."""
    stimuli = torch.randn(toy.n_stimuli, 2, generator=generator)
    responses = stimuli @ true_weights.T
    noise_sd = toy.noise_sd if toy.snr is None else float((responses.var() / toy.snr).sqrt())
    return stimuli, responses + noise_sd * torch.randn(responses.shape, generator=generator)


def learn_weights(toy: Toy, stimuli: Tensor, responses: Tensor, generator: torch.Generator) -> Tensor:
    """Learn the weights (N, 2) by stochastic gradient descent on the squared error."""
    weights = torch.zeros(responses.shape[1], stimuli.shape[1])
    for epoch in range(toy.epochs):
        for batch in torch.randperm(len(stimuli), generator=generator).split(toy.batch_size):
            errors = stimuli[batch] @ weights.T - responses[batch]
            # A falling rate averages the noise of the batches away.
            weights -= 0.1 / (1 + epoch) * errors.T @ stimuli[batch] / len(batch)
    return weights


def batches(toy: Toy, seed: int) -> Iterator[Tensor]:
    """Yield the positions of the stimuli of every step, epoch after epoch."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(toy.n_stimuli, generator=generator).split(toy.batch_size)


def cluster(
    toy: Toy,
    method: str,
    start: Tensor,
    groups: np.ndarray,
    recorded: tuple[Tensor, Tensor],
    *,
    detach_target: bool,
    seed: int,
) -> Run:
    """Minimise the clustering loss, alone or along with the squared error, starting at weights (N, 2)."""
    weights = start.clone().requires_grad_()
    stimuli, responses = recorded
    module = {"DEC": VanillaDEC, "DECEMber": DECEMber}[method](2, 2, detach_target=detach_target)
    module.initialize(weights, seed=seed)
    optimizer = torch.optim.SGD([weights, *module.parameters()], lr=LEARNING_RATES[method])
    distances = []

    def centers() -> Tensor:
        return (module.centers if method == "DEC" else module.mixture.centers).detach()

    for _, batch in zip(range(toy.steps), batches(toy, seed), strict=False):
        distances.append(float(torch.pdist(centers())))
        optimizer.zero_grad()
        loss = module.loss(weights)
        if toy.joint:
            loss = loss + (stimuli[batch] @ weights.T - responses[batch]).square().sum(dim=1).mean()
        loss.backward()
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


def experiment(toy: Toy, seed: int) -> tuple[Tensor, np.ndarray, list[Run]]:
    """Learn the weights, then run both losses with both kinds of target; return weights, groups and runs."""
    true_weights, groups = planted_weights(toy, seed)
    generator = torch.Generator().manual_seed(seed)
    recorded = record(toy, true_weights, generator)
    weights = learn_weights(toy, *recorded, generator)
    runs = [
        cluster(toy, method, weights, groups, recorded, detach_target=detach, seed=seed)
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
        pd.DataFrame({"label": run.method, "target": run.target, "step": step, "distance": run.distances}).assign(
            identity=Method(run.method.lower())
        )
        for run in runs
        for step in [np.arange(len(run.distances))]
    ]
    return pd.concat(stages, ignore_index=True), pd.concat(distances, ignore_index=True)


def _points(stage: str, kind: str, points: np.ndarray, groups: np.ndarray) -> pd.DataFrame:
    columns = {"weight_1": points[:, 0], "weight_2": points[:, 1], "group": groups}
    return pd.DataFrame({"stage": stage, "kind": kind, **columns})


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("figures"), help="folder for the figure: png, svg and pdf")
    parser.add_argument(
        "--version", choices=tuple(VERSIONS), default="first", help="of the paper (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, stimuli, noise and k-means")
    parser.add_argument("--epochs", type=int, help="epochs of the regression (default: the version's)")
    parser.add_argument("--steps", type=int, help="clustering steps (default: the version's)")
    arguments = parser.parse_args(argv)
    changed = {name: getattr(arguments, name) for name in ("epochs", "steps") if getattr(arguments, name) is not None}
    toy = replace(VERSIONS[arguments.version], **changed)
    weights, groups, runs = experiment(toy, arguments.seed)
    print(table(runs))
    planted = float(np.linalg.norm(np.subtract(*CENTERS)))
    figure = toy_figure(*frames(weights, groups, runs), planted=planted)
    name = "toy_dec" if arguments.version == "first" else f"toy_dec_{arguments.version}"
    paths = save_figure(figure, arguments.output, name, ("png", "svg", "pdf"))
    print(f"Figures: {', '.join(map(str, paths))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
