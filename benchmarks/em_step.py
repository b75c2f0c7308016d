"""The cost of one DECEMber step, compared with plain autograd and with scikit-learn.

One step is the E-step, the clustering loss, its gradient in the readout vectors, and the M-step, on float32 vectors. It
is compared with the same step written plainly, with a tensor of (neurons, clusters, features) and autograd, if that
fits into memory, and with one EM iteration (E- and M-step, no loss and no gradient) of scikit-learn's GaussianMixture
with diagonal covariances, on the same float32 vectors and on the same vectors in float64. Measurements take turns;
times are medians. Memory is the growth of the peak resident memory during two steps, each case in its own process.

The case "functional" is the step on functional embeddings, whose gradient flows to the readout vectors through the root
of the feature covariance: a product (N, D) x (D, D) before it, and one after. "functional l2" is the step on their
directions.

The case "as on a GPU" is the step as it runs there, by plain operations that never let the host wait. It is run on the
CPU to be compared with float64; on a machine with a GPU its time there is measured, too, launch by launch and as a
CUDA graph.

    python benchmarks/em_step.py --threads 1 --repeats 7
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import sklearn
import torch
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from december_plugin.clustering.losses import DECEMber
from december_plugin.embeddings.space import EmbeddingSpace, covariance_root

CLUSTERS = (10, 50, 100)
LARGEST_PLAIN = 10
TIME_TARGETS = {10: 3.0, 50: 2.0, 100: 2.0}
FUNCTIONAL_TARGET = 1.3  # times the step on readout vectors, at 100 clusters
MEMORY_TARGET = 500  # MB, at 100 clusters
DOF = 2.1
GPU_TARGET = 1.0  # ms
PAUSE = 0.1  # seconds; the threads of the library measured before keep spinning for a while

READOUT = EmbeddingSpace()
SPACES = {
    "functional": EmbeddingSpace(space="functional"),
    "functional l2": EmbeddingSpace(space="functional", normalize="l2"),
}

Step = Callable[[], object]


def make_data(n: int, d: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping clusters: vectors (N, D) float32 and their centres (K, D)."""
    rng = np.random.default_rng(0)
    centers = 0.25 * rng.standard_normal((k, d), dtype=np.float32)
    w = rng.standard_normal((n, d), dtype=np.float32)
    w += centers[rng.integers(0, k, n)]
    return w, centers


def december_step(
    w: np.ndarray,
    centers: np.ndarray,
    *,
    device: str = "cpu",
    asynchronous: bool | None = None,
    space: EmbeddingSpace = READOUT,
) -> Callable[[], tuple[torch.Tensor, ...]]:
    """Return a function that does one step and returns loss, gradient, centres and scales."""
    vectors = torch.from_numpy(w).to(device).requires_grad_()
    december = DECEMber(*centers.shape, dof=DOF, asynchronous=asynchronous).to(device)
    december.mixture.centers.copy_(torch.from_numpy(centers))
    december.mixture.scales.fill_(1)
    root = torch.as_tensor(root_of_features(w.shape[1])).to(vectors) if space.is_functional else None

    def step() -> tuple[torch.Tensor, ...]:
        embedded = space.embed(vectors, root)
        loss = december.loss(embedded)
        (gradient,) = torch.autograd.grad(loss, vectors)
        december.m_step(embedded.detach())
        return loss.detach(), gradient, december.mixture.centers, december.mixture.scales

    return step


def root_of_features(d: int) -> np.ndarray:
    """Root (D, D) of the covariance of features whose principal components decay as 1 / rank, of mean variance 1."""
    axes = np.linalg.qr(np.random.default_rng(1).standard_normal((d, d)))[0]
    variances = 1 / np.arange(1, d + 1)
    return covariance_root((axes * (variances / variances.mean())) @ axes.T)


def step_of_a_gpu(w: np.ndarray, centers: np.ndarray) -> Step:
    return december_step(w, centers, asynchronous=True)


def plain_step(w: np.ndarray, centers: np.ndarray) -> Step:
    """Run the paper's equations, in float32."""
    vectors = torch.from_numpy(w).requires_grad_()
    means = torch.from_numpy(centers).clone()
    scales = torch.ones_like(means)
    d = w.shape[1]

    def step() -> tuple[torch.Tensor, ...]:
        nonlocal means, scales
        delta = ((vectors[:, None] - means) ** 2 / scales).sum(-1)
        log_t = -scales.log().sum(-1) / 2 - (DOF + d) / 2 * torch.log1p(delta / DOF)
        log_q = torch.log_softmax(log_t, dim=1)
        q = log_q.exp()
        log_p = torch.log_softmax(2 * log_q - q.sum(0).log(), dim=1)
        loss = (log_p.exp() * (log_p - log_q)).sum()
        (gradient,) = torch.autograd.grad(loss, vectors)
        with torch.no_grad():
            qu = q * (DOF + d) / (DOF + delta)
            means = qu.T @ vectors / qu.sum(0)[:, None]
            spread = qu[:, :, None] * (vectors[:, None] - means) ** 2
            scales = (spread.sum(0) / q.sum(0)[:, None]).clamp(1e-4, 1e4)
        return loss.detach(), gradient, means, scales

    return step


def sklearn_iteration(w: np.ndarray, centers: np.ndarray) -> Step:
    k, d = centers.shape
    mixture = GaussianMixture(k, covariance_type="diag")
    mixture.weights_ = np.full(k, 1 / k, dtype=w.dtype)
    mixture.means_ = centers.astype(w.dtype)
    mixture.covariances_ = np.ones((k, d), dtype=w.dtype)
    mixture.precisions_cholesky_ = np.ones((k, d), dtype=w.dtype)

    def iteration() -> None:
        _, log_resp = mixture._e_step(w)
        mixture._m_step(w, log_resp)

    return iteration


def sklearn_iteration_float64(w: np.ndarray, centers: np.ndarray) -> Step:
    return sklearn_iteration(w.astype(np.float64), centers)


CASES: dict[str, Callable[[np.ndarray, np.ndarray], Step]] = {
    "DECEMber": december_step,
    **{case: functools.partial(december_step, space=space) for case, space in SPACES.items()},
    "as on a GPU": step_of_a_gpu,
    "plain": plain_step,
    "sklearn32": sklearn_iteration,
    "sklearn64": sklearn_iteration_float64,
}


def cases_at(k: int) -> list[str]:
    return [case for case in CASES if case != "plain" or k <= LARGEST_PLAIN]


def measure_times(n: int, d: int, k: int, repeats: int) -> dict[str, float]:
    """Median seconds of every case, measured in turns after one warm-up each."""
    w, centers = make_data(n, d, k)
    steps = {case: CASES[case](w, centers) for case in cases_at(k)}
    seconds: dict[str, list[float]] = {case: [] for case in steps}
    for repeat in range(repeats + 1):
        for case, step in steps.items():
            if case == "plain" and repeat > 3:
                continue
            time.sleep(PAUSE)
            start = time.perf_counter()
            step()
            if repeat:
                seconds[case].append(time.perf_counter() - start)
    return {case: statistics.median(values) for case, values in seconds.items()}


def errors_of_step(n: int, d: int, k: int, *, device: str) -> dict[str, float]:
    """Relative errors of one step on a device, as it runs on a GPU: norms against float64 vectors on the CPU."""
    w, centers = make_data(n, d, k)
    names = ("loss", "gradient", "centres", "scales")
    expected = december_step(w.astype(np.float64), centers)()
    found = december_step(w, centers, device=device, asynchronous=True)()
    pairs = zip(names, found, expected, strict=True)
    return {name: float((a.cpu().double() - b).norm() / b.norm()) for name, a, b in pairs}


def recorded(step: Step) -> Step:
    """Record a step as a CUDA graph, after three calls, and return the function that replays it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def measure_on_gpu(n: int, d: int, k: int, *, repeats: int = 20, calls: int = 10) -> dict[str, float]:
    """Milliseconds of a step, launch by launch and as a graph, by CUDA events (medians), and its peak memory in MB."""
    step = december_step(*make_data(n, d, k), device="cuda")
    step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    results = {"peak_mb": (torch.cuda.max_memory_allocated() - before) / 1e6}
    for name, function in (("launches_ms", step), ("graph_ms", recorded(step))):
        times = []
        for _ in range(repeats + 1):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(calls):
                function()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / calls)
        results[name] = statistics.median(times[1:])
    return results


def resident_memory() -> dict[str, float]:
    """Resident memory of this process now and at its peak, MB."""
    with open("/proc/self/status", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    return {name: int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")}


def growth_of_peak(case: str, n: int, d: int, k: int) -> float:
    """Peak resident memory of two steps above what the process held before, MB; to be run in a fresh process."""
    warm_up = CASES[case](*make_data(1000, d, k))
    warm_up()
    step = CASES[case](*make_data(n, d, k))
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # resets the peak to the present
    before = resident_memory()["VmRSS"]
    step()
    step()
    return resident_memory()["VmHWM"] - before


def measure_memory(case: str, k: int, arguments: argparse.Namespace) -> float:
    command = [sys.executable, __file__, "--memory-of", case, "--clusters", str(k)]
    for name in ("n", "d", "threads"):
        command += [f"--{name}", str(getattr(arguments, name))]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def show(number: float, unit: str, digits: int) -> str:
    return "-" if math.isnan(number) else f"{number:.{digits}f} {unit}".rstrip()


def report(k: int, seconds: dict[str, float], memory: dict[str, float]) -> list[str]:
    """Return one row per case."""
    step = seconds["DECEMber"]
    notes = {"sklearn32": f"at most {TIME_TARGETS[k]:g} x" if k in TIME_TARGETS else ""}
    if k == 100:
        notes["DECEMber"] = f"at most {MEMORY_TARGET} MB"
    return [
        f"{k:>4}  {case:<13}{show(value, 's', 3):>10}{show(memory.get(case, math.nan), 'MB', 0):>11}"
        f"{show(step / value, 'x', 2):>16}  {notes.get(case, '')}".rstrip()
        for case, value in seconds.items()
    ]


def report_spaces(k: int, seconds: dict[str, float]) -> str:
    """Return the cost of the step in functional space, relative to that on readout vectors."""
    ratios = ", ".join(f"{case} {seconds[case] / seconds['DECEMber']:.2f} x" for case in SPACES)
    target = f" (at most {FUNCTIONAL_TARGET:g} x)" if k == 100 else ""
    return f"{k:>4}  case/DECEMber: {ratios}{target}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=54_569, help="neurons (default: the SENSORIUM 2022 mice, %(default)s)")
    parser.add_argument("--d", type=int, default=128, help="features (default: %(default)s)")
    parser.add_argument("--clusters", type=int, nargs="+", default=list(CLUSTERS), help="default: 10 50 100")
    parser.add_argument("--threads", type=int, default=1, help="threads of every case (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="measurements per case (default: %(default)s)")
    parser.add_argument("--memory-of", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    with threadpool_limits(arguments.threads):
        if arguments.memory_of:
            print(json.dumps(growth_of_peak(arguments.memory_of, arguments.n, arguments.d, arguments.clusters[0])))
            return 0
        print(
            f"{arguments.n} neurons, {arguments.d} features, {arguments.threads} threads, median of "
            f"{arguments.repeats}; torch {torch.__version__}, scikit-learn {sklearn.__version__}\n"
        )
        print(f"{'K':>4}  {'case':<13}{'time':>10}{'memory':>11}{'DECEMber/case':>16}  target")
        for k in arguments.clusters:
            seconds = measure_times(arguments.n, arguments.d, k, arguments.repeats)
            memory = {case: measure_memory(case, k, arguments) for case in seconds}
            print("\n".join(report(k, seconds, memory)))
            print(report_spaces(k, seconds), flush=True)
    size = arguments.n, arguments.d, arguments.clusters[-1]
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        errors = ", ".join(f"{name} {error:.1e}" for name, error in errors_of_step(*size, device=device).items())
        print(f"\nerrors as on a GPU, on {device}, K = {size[2]}: {errors}")
    if torch.cuda.is_available():
        found = measure_on_gpu(*size)
        print(
            f"one step on {torch.cuda.get_device_name()}: {found['launches_ms']:.2f} ms, as a CUDA graph "
            f"{found['graph_ms']:.2f} ms (at most {GPU_TARGET:g} ms on an H100), {found['peak_mb']:.0f} MB at its peak"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
