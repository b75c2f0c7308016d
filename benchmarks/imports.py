"""The cost of importing the readout vectors of 104,171 neurons x 512 features, and of clustering them by k-means.

The array is simulated, with the size of MICrONS' published digital twin; everything else is what `december import` and
a worker do, with their own server and store. For comparison, the array is written once, which any import must do, and
clustered by scikit-learn's k-means with as many restarts: times are given as ratios to these. Other work on the machine
lengthens wall times, but hardly processor times, which are therefore given, too, with the load.

    python benchmarks/imports.py --neurons 104171 --features 512
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.cluster import KMeans

from benchmarks.registration import embedded_lab
from december_plugin.intake import import_models

N_CLUSTERS = 20
TARGET = 180.0  # seconds, on two cores


def write_twin(folder: Path, n_neurons: int, n_features: int) -> None:
    """Write readout vectors of 20 broad clusters, and a table of units."""
    rng = np.random.default_rng(0)
    centers = 0.5 * rng.normal(size=(N_CLUSTERS, n_features)).astype(np.float32)
    array = np.lib.format.open_memmap(folder / "readout_weights.npy", "w+", np.float32, (n_neurons, n_features))
    for start in range(0, n_neurons, 8192):
        rows = slice(start, min(start + 8192, n_neurons))
        noise = rng.standard_normal((rows.stop - rows.start, n_features), dtype=np.float32)
        array[rows] = centers[rng.integers(0, N_CLUSTERS, len(noise))] + noise
    array.flush()
    scans = np.sort(rng.integers(0, 14, n_neurons))
    units = {"session": 4 + scans // 3, "scan_idx": scans % 3 + 1, "unit_id": np.arange(n_neurons)}
    pd.DataFrame(units).to_csv(folder / "units.csv", index=False)


class Seconds(NamedTuple):
    """Wall time, and processor time over all threads of this process."""

    clock: float
    processor: float


def timed(function: Any, *arguments: Any, **settings: Any) -> tuple[Seconds, Any]:
    clock, processor = time.perf_counter(), time.process_time()
    result = function(*arguments, **settings)
    return Seconds(time.perf_counter() - clock, time.process_time() - processor), result


def line(name: str, spent: Seconds, beside: str) -> str:
    return f"{name:<19}{spent.clock:7.1f} s {spent.processor:7.1f} s   {beside}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=104_171)
    parser.add_argument("--features", type=int, default=512)
    args = parser.parse_args()
    content = {
        "units": "units.csv",
        "models": [{"name": "twin", "readouts": "readout_weights.npy"}],
        "clusterings": [{"method": "kmeans", "n_clusters": N_CLUSTERS}],
    }
    with tempfile.TemporaryDirectory() as folder, embedded_lab() as lab:
        write_twin(Path(folder), args.neurons, args.features)
        vectors = np.load(Path(folder) / "readout_weights.npy")
        writing, _ = timed(torch.save, {"features": torch.from_numpy(vectors)}, Path(folder) / "copy.pth")
        settings = {"nnfabrik": lab.nnfabrik, "tables": lab.tables, "folder": folder, "add_fabrikant": True}
        importing, _ = timed(import_models, content, **settings)
        again, _ = timed(import_models, content, **settings)
        clustering, _ = timed(lab.tables.ClusterAssignment.populate)
        (n_init,) = {clustering["n_init"] for clustering in lab.tables.Clustering.fetch("settings") if clustering}
        plain, _ = timed(KMeans(N_CLUSTERS, n_init=n_init, random_state=0).fit, vectors)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    together = Seconds(*map(sum, zip(importing, clustering, strict=True)))
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    verdict = "met" if together.clock < TARGET else "missed"
    print(
        f"{args.neurons:,} x {args.features}, {torch.get_num_threads()} thread(s) of torch, {os.cpu_count()} cores, "
        f"load {load} (1, 5, 15 minutes)"
    )
    print(f"{'':<19}{'clock':>9} {'processor':>9}")
    print(line("import", importing, f"{importing.clock / writing.clock:5.1f} times writing the array once"))
    print(line("the same again", again, f"{again.clock / writing.clock:5.1f} times"))
    ratios = f"{clustering.clock / plain.clock:5.2f} times scikit-learn's, of the processor "
    ratios += f"{clustering.processor / plain.processor:.2f} times; {n_init} restarts"
    print(line(f"k-means, K = {N_CLUSTERS}", clustering, ratios))
    print(line("together", together, f"target {TARGET:.0f} s by the clock on two cores: {verdict}"))
    print(f"most memory        {peak:7.1f} GB")


if __name__ == "__main__":
    main()
