"""What happens to clusters that lose their neurons: kept where they are, or put among all neurons again.

With many clusters and a strong clustering loss, some clusters lose all their neurons. ``empty_clusters="keep"``, the
default, leaves them where they are; ``"reseed"`` puts them in the middle of all neurons with wide scales, as the
published code does. Two simulated recordings, a small core with a Gaussian readout, K = 60. For each strength and seed
both settings continue from the same pretraining.

    python studies/empty_clusters.py --seeds 4
    python studies/empty_clusters.py --seeds 4 --dead 10

The second moves the centres of ten clusters away before plain EM on the readout vectors of the pretraining, so that
they have no neurons whatever the loss does, and reports what happens to them.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score

from december_plugin.clustering.student_t_mixture import EMPTY_CLUSTERS, WEIGHTS, StudentTMixture
from december_plugin.datasets import static_loaders
from december_plugin.embeddings.readout_vectors import stack_readout_vectors
from december_plugin.models import stacked_core_gaussian_readout
from december_plugin.simulate import read_truth, write_recording
from december_plugin.trainers import baseline_trainer, december_trainer

K = 60
STRENGTHS = ("auto", "100", "1e4")
MODEL = {"hidden_channels": 16, "input_kern": 7, "hidden_kern": 3, "layers": 2, "depth_separable": False}
TRAINING = {"pretrain_epochs": 10, "lr_init": 0.009}
BATCH_SIZE = 32
EM_STEPS = 200


def recordings(folder: Path, n_neurons: int) -> list[Path]:
    """Write two recordings of the same population of planted types."""
    return [
        write_recording(folder / f"static{animal}-1-1-GrayImageNet", n_neurons=n_neurons, seed=animal)
        for animal in (1, 2)
    ]


def run(paths: Sequence[Path], seed: int, strength: str, **settings: Any) -> dict[str, Any]:
    """Train once; return labels, the score, and how many clusters have neurons."""
    loaders = static_loaders([str(path) for path in paths], BATCH_SIZE)
    model = stacked_core_gaussian_readout(loaders, seed, grid_mean_predictor=None, **MODEL)
    beta = strength if strength == "auto" else float(strength)
    score, output, _ = december_trainer(model, loaders, seed, n_clusters=K, strength=beta, **TRAINING, **settings)
    vectors = stack_readout_vectors(model).detach().cpu()
    mixture = StudentTMixture(K, vectors.shape[1], weights=output["mixture"]["weights"])
    stored = {name: torch.as_tensor(output["mixture"][name]) for name in mixture.state_dict()}
    mixture.load_state_dict(stored)
    labels = mixture.predict(vectors).numpy()
    masses = mixture.e_step(vectors)[0].sum(dim=0)
    return {
        "labels": labels,
        "score": score,
        "occupied": len(np.unique(labels)),
        "empty": int((masses < 1e-3).sum()),
        "ratio": output["clustering"]["gradient_ratio"],
    }


def after_death(vectors: torch.Tensor, truth: np.ndarray, setting: str, *, n_dead: int, seed: int) -> list[float]:
    """Let ``n_dead`` clusters lose their neurons, then do EM; return clusters with neurons, ARI, log likelihood."""
    mixture = StudentTMixture(K, vectors.shape[1])
    mixture.initialize(vectors, seed=seed)
    mixture.centers[:n_dead] += 1e6
    for _ in range(EM_STEPS):
        mixture.m_step(vectors, *mixture.e_step(vectors), empty_clusters=setting)
    labels = mixture.predict(vectors).numpy()
    return [len(np.unique(labels)), adjusted_rand_score(truth, labels), mixture.score(vectors)]


def report_deaths(paths: Sequence[Path], truth: np.ndarray, *, n_seeds: int, n_dead: int) -> None:
    """Print what happens to dead clusters on the readout vectors of a pretraining, mean over seeds."""
    rows: dict[str, list[list[float]]] = {setting: [] for setting in EMPTY_CLUSTERS}
    for seed in range(1, n_seeds + 1):
        loaders = static_loaders([str(path) for path in paths], BATCH_SIZE)
        model = stacked_core_gaussian_readout(loaders, seed, grid_mean_predictor=None, **MODEL)
        baseline_trainer(model, loaders, seed, **TRAINING, stop_after_pretraining=True)
        vectors = stack_readout_vectors(model).detach().cpu()
        for setting in EMPTY_CLUSTERS:
            rows[setting].append(after_death(vectors, truth, setting, n_dead=n_dead, seed=seed))
    print("| empty clusters | clusters with neurons | ARI, types | log likelihood per neuron |")
    print("| --- | --- | --- | --- |")
    for setting, values in rows.items():
        occupied, planted, likelihood = np.mean(values, axis=0)
        print(f"| {setting} | {occupied:.1f} | {planted:.3f} | {likelihood:.3f} |")


Found = dict[tuple[str, str], list[dict[str, Any]]]  # strength and setting to the runs of all seeds


def table(found: Found, truth: np.ndarray) -> Iterable[str]:
    """Yield the lines of a table in Markdown: one for each strength and setting."""
    yield "| strength (R) | empty clusters | clusters with neurons | without any | ARI, seeds | ARI, types | score |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for (strength, setting), runs in found.items():
        pairs = itertools.combinations([each["labels"] for each in runs], 2)
        agreement = [adjusted_rand_score(a, b) for a, b in pairs]
        planted = [adjusted_rand_score(truth, each["labels"]) for each in runs]
        mean = {name: np.mean([each[name] for each in runs]) for name in ("occupied", "empty", "score", "ratio")}
        yield (
            f"| {strength} ({mean['ratio']:.2g}) | {setting} | {mean['occupied']:.1f} | {mean['empty']:.1f} | "
            f"{np.mean(agreement):.3f} (sd {np.std(agreement, ddof=1):.3f}) | {np.mean(planted):.3f} | "
            f"{mean['score']:.4f} |"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4, help="number of model seeds (default: %(default)s)")
    parser.add_argument("--neurons", type=int, default=200, help="neurons of each recording (default: %(default)s)")
    parser.add_argument("--max-iter", type=int, default=24, help="epochs, ten of which pretrain (default: %(default)s)")
    parser.add_argument("--weights", choices=WEIGHTS, default="uniform", help="of the mixture (default: %(default)s)")
    parser.add_argument("--dead", type=int, help="clusters that lose their neurons, in plain EM; no trainings")
    parser.add_argument("--strengths", nargs="+", default=STRENGTHS, help="of the loss (default: auto 100 1e4)")
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore", UserWarning)  # of strong clustering, which is studied here
    settings = {"max_iter": arguments.max_iter, "weights": arguments.weights}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DECEMBER_PRETRAINING"] = str(Path(folder) / "pretraining")
        paths = recordings(Path(folder), arguments.neurons)
        truth = np.concatenate([read_truth(path).types for path in paths])
        if arguments.dead is not None:
            report_deaths(paths, truth, n_seeds=arguments.seeds, n_dead=arguments.dead)
            return 0
        found: Found = {}
        for seed, strength, each in itertools.product(
            range(1, arguments.seeds + 1), arguments.strengths, EMPTY_CLUSTERS
        ):
            trained = run(paths, seed, strength, empty_clusters=each, **settings)
            found.setdefault((strength, each), []).append(trained)
            print(f"seed {seed}, strength {strength}, {each}: {trained['occupied']} with neurons", flush=True)
    print("\n".join(table(found, truth)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
