"""The time of a figure's t-SNE, compared with scikit-learn.

The first measurement is the paper's picture: 2,000 neurons of each of seven mice, readout vectors of 64 channels. The
second compares with scikit-learn's t-SNE at a smaller size, at the same perplexity and number of iterations, each from
the same start; both are given the same number of threads. Wall and processor time are printed: on a busy machine the
wall time means little.

    python benchmarks/tsne.py --n 14000 --compare 3000
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import openTSNE
import sklearn
from sklearn.manifold import TSNE

from december_plugin.evaluation import tsne
from december_plugin.plots import tsne_coordinates, tsne_settings

TARGET = 120  # seconds, for 14,000 neurons on two processors


def readouts(n: int, d: int) -> np.ndarray:
    """Overlapping groups of vectors (N, D)."""
    rng = np.random.default_rng(0)
    return 0.5 * rng.normal(size=(20, d))[rng.integers(0, 20, n)] + rng.normal(size=(n, d))


def measured(run: Callable[[], np.ndarray]) -> tuple[float, float]:
    """Return wall and processor time in seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - processor


def with_sklearn(vectors: np.ndarray) -> np.ndarray:
    """Run scikit-learn's t-SNE for as many iterations at the same perplexity."""
    settings = tsne_settings(len(vectors))
    iterations = settings.first_stage["n_iter"] + settings.second_stage["n_iter"]
    # The learning rate is for a gradient with a factor of 4.
    model = TSNE(
        perplexity=settings.perplexity,
        early_exaggeration=12.0,
        learning_rate=settings.learning_rate / 4,
        max_iter=iterations,
        n_iter_without_progress=iterations,
        init="pca",
        random_state=0,
        n_jobs=tsne._n_threads(len(vectors)),
    )
    return model.fit_transform(vectors)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=14_000, help="neurons (default: %(default)s)")
    parser.add_argument("--d", type=int, default=64, help="channels (default: %(default)s)")
    parser.add_argument("--compare", type=int, default=3000, help="neurons in the comparison (default: %(default)s)")
    arguments = parser.parse_args(argv)
    print(
        f"openTSNE {openTSNE.__version__}, scikit-learn {sklearn.__version__}, {arguments.d} channels, "
        f"{tsne._n_threads(arguments.n)} threads from {tsne._THREADS_FROM} neurons on\n"
    )
    print(f"{'neurons':>8}  {'t-SNE':<14}{'wall':>9}{'processor':>12}")
    vectors = readouts(arguments.n, arguments.d)
    wall, processor = measured(lambda: tsne_coordinates(vectors, seed=0))
    print(f"{arguments.n:>8}  {'ours':<14}{wall:>7.1f} s{processor:>10.1f} s   at most {TARGET} s wall", flush=True)
    vectors = readouts(arguments.compare, arguments.d)
    ours = measured(lambda: tsne_coordinates(vectors, seed=0))
    theirs = measured(lambda: with_sklearn(vectors))
    print(f"{arguments.compare:>8}  {'ours':<14}{ours[0]:>7.1f} s{ours[1]:>10.1f} s")
    print(f"{arguments.compare:>8}  {'scikit-learn':<14}{theirs[0]:>7.1f} s{theirs[1]:>10.1f} s")
    print(f"\nscikit-learn/ours: {theirs[0] / ours[0]:.2f} x wall, {theirs[1] / ours[1]:.2f} x processor")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
