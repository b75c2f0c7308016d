"""Clustering losses on readout vectors: DECEMber, and the deep embedded clustering (DEC) that it replaces."""

from __future__ import annotations

import functools
import math
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from december_plugin.clustering.distances import (
    DiagonalDistances,
    FiniteVectors,
    as_vectors,
    squared_distances,
    working_dtype,
)
from december_plugin.clustering.kmeans import kmeans_start
from december_plugin.clustering.methods import KMEANS_RESTARTS
from december_plugin.clustering.student_t_mixture import EMPTY_CLUSTERS, SCALE_CENTERS, StudentTMixture
from december_plugin.errors import EmbeddingError
from december_plugin.validation.checks import check_choice, check_count


def target_distribution(q: Tensor) -> Tensor:
    """Sharpened assignments towards which the clustering loss pulls (Xie et al. 2016; paper, equation 2.2).

    ``f_k = sum_i q_ik`` and ``p_ik = (q_ik^2 / f_k) / sum_j (q_ij^2 / f_j)``

    Parameters
    ----------
    q
        Responsibilities (N, K), each row summing to 1.

    Returns
    -------
    Tensor
        ``p`` (N, K), each row summing to 1; 0 for a cluster that no neuron belongs to. Differentiable in ``q``.

    See Also
    --------
    kl_divergence : Between this target and the responsibilities.
    DECEMber : The loss that pulls to it.

    References
    ----------
    Xie J, Girshick R, Farhadi A (2016). Unsupervised deep embedding for clustering analysis. *ICML*.
    https://arxiv.org/abs/1511.06335

    Examples
    --------
    >>> import torch
    >>> from december_plugin.clustering import target_distribution
    >>> target_distribution(torch.tensor([[0.8, 0.2], [0.2, 0.8]]))
    tensor([[0.9412, 0.0588],
            [0.0588, 0.9412]])
    """
    sharpened = q * q / q.sum(dim=0).clamp_min(torch.finfo(q.dtype).tiny)
    return sharpened / sharpened.sum(dim=1, keepdim=True)


def kl_divergence(p: Tensor, log_q: Tensor) -> Tensor:
    """Kullback-Leibler divergence summed over neurons, ``sum_i sum_k p_ik (log p_ik - log q_ik)``.

    Parameters
    ----------
    p
        Target distribution (N, K).
    log_q
        Logarithm of the responsibilities (N, K).

    Returns
    -------
    Tensor
        A sum and not a mean, nats, scalar. Entries with ``p_ik = 0`` add nothing, and have no gradient, even where
        ``log_q`` is ``-inf``. Differentiable in both.

    See Also
    --------
    target_distribution : The first argument in the clustering losses.
    DECEMber : The loss that uses it.

    Examples
    --------
    >>> import torch
    >>> from december_plugin.clustering import kl_divergence
    >>> q = torch.tensor([[0.5, 0.5]])
    >>> float(kl_divergence(q, q.log())), round(float(kl_divergence(torch.tensor([[1.0, 0.0]]), q.log())), 4)
    (0.0, 0.6931)
    """
    present = p > 0
    # Both torch.where are needed: an infinity in the branch not taken would still turn the gradient into NaN.
    log_ratio = torch.where(present, p, 1).log() - torch.where(present, log_q, 0)
    return torch.where(present, p * log_ratio, 0).sum()


MOST_CLUSTERS_OF_KERNELS = 1024  # that a program can hold in its registers
KERNEL_TOLERANCE = 1e-3  # of loss, gradient, centres and scales, relative to plain operations: finds what is wrong


class ClusteringLoss(torch.autograd.Function):
    """KL of the target from the responsibilities, with its gradient in the readout vectors, block by block.

    Let ``a = log pi + log t`` be the logits of ``q``, ``r = log p - log q``, ``R_i = sum_k p_ik r_ik`` the part of
    neuron ``i`` in the loss and ``t = p (r - R)``. A constant target gives ``dKL/da = q - p``. Where the gradient flows
    through the target, the logits ``2 log q - log f`` of ``p`` add ``2 t`` and, through the cluster sums ``f``,
    ``q_ik (sum_j v_j q_ij - v_k)`` with ``v_k = sum_i t_ik / f_k``. Last, ``da/ddelta = -u / 2``.
    """

    @staticmethod
    def forward(
        ctx: Any, w: Tensor, mixture: StudentTMixture, detach_target: bool, seen: FiniteVectors | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss, and responsibilities and precisions (K, N), which :class:`FiniteVectors` may look at."""
        dtype = working_dtype(w)
        distances = DiagonalDistances(w, mixture.centers, mixture.scales, asynchronous=seen is not None)
        log_q, q, u = (w.new_empty((mixture.n_clusters, len(w)), dtype=dtype) for _ in range(3))
        sums = distances.shift.new_zeros(mixture.n_clusters)
        blocks = []
        log_likelihoods = None if seen is None else distances.shift.new_empty(len(w))
        for block in mixture.posterior_blocks(distances, (log_q, q, u)):
            sums += block.q.sum(dim=1)
            blocks.append(block.rows)
            if log_likelihoods is not None:
                log_likelihoods[block.rows] = block.log_likelihoods()
        if seen is not None and log_likelihoods is not None:
            seen.note(log_likelihoods)
        # From here on the memory of log_q holds dKL/da, short of the part through the cluster sums.
        logit_gradients = log_q
        # Only ratios of the sums matter, and numbers near 1 have logarithms that float32 resolves ten times better. On
        # the CPU the bytes of trainings depend on the sums as they are.
        unit = sums.mean() if distances.asynchronous else 1
        loss, sum_gradients = _replace_by_logit_gradients(log_q, q, sums / unit, blocks, detach_target=detach_target)
        sum_gradients = None if sum_gradients is None else sum_gradients / unit
        ctx.distances, ctx.blocks, ctx.sum_gradients = distances, blocks, sum_gradients
        ctx.save_for_backward(w, q, u, logit_gradients)
        ctx.mark_non_differentiable(q, u)
        ctx.set_materialize_grads(False)
        return loss.to(dtype), q, u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient: Tensor | None, *_: None) -> tuple[Tensor | None, None, None, None]:
        """Return the gradient with respect to the vectors."""
        if loss_gradient is None:
            return None, None, None, None
        w, q, u, logit_gradients = ctx.saved_tensors
        gradient = torch.empty_like(w)
        scale = (-0.5 * loss_gradient).to(q.dtype)
        with torch.autocast(w.device.type, enabled=False):
            for rows in ctx.blocks:
                block = logit_gradients[:, rows]
                if ctx.sum_gradients is not None:
                    q_block = q[:, rows]
                    block = torch.addcmul(block, q_block, ctx.sum_gradients @ q_block - ctx.sum_gradients[:, None])
                ctx.distances.backward_vectors((block * u[:, rows]).mul_(scale), rows, gradient)
        return gradient, None, None, None


def _replace_by_logit_gradients(
    log_q: Tensor, q: Tensor, sums: Tensor, blocks: list[slice], *, detach_target: bool
) -> tuple[Tensor, Tensor | None]:
    """Write ``q - p + 2 t``, or ``q - p``, over ``log_q`` (K, N); return the loss and ``v`` (K,) or None."""
    loss, flows = sums.new_zeros(()), torch.zeros_like(sums)
    log_sums, inverse_sums = (x.to(q.dtype)[:, None] for x in (sums.log(), sums.reciprocal()))
    for rows in blocks:
        log_q_block, q_block = log_q[:, rows], q[:, rows]
        p = (q_block * q_block).mul_(inverse_sums)
        norms = p.sum(dim=0)
        p /= norms
        log_ratios = log_q_block - log_sums  # up to the logarithm of the norm, one number per neuron
        means = (p * log_ratios).sum(dim=0)
        loss += (means - norms.log()).sum(dtype=torch.float64)
        torch.sub(q_block, p, out=log_q_block)
        if not detach_target:
            t = log_ratios.sub_(means).mul_(p)
            flows += t.sum(dim=1)
            log_q_block.add_(t, alpha=2)
    return loss, None if detach_target else (flows / sums).to(q.dtype)


def _step_kernels() -> ModuleType:
    """Import the kernels, which needs Triton."""
    from december_plugin.clustering import step_kernels

    return step_kernels


@functools.cache
def kernels_work(device: torch.device, n_clusters: int, n_features: int, dof: float, detach_target: bool) -> bool:
    """Tell whether the Triton kernels of the step (:mod:`.step_kernels`) give what plain operations give here.

    Both do one step on a few vectors. Where the kernels cannot be compiled, or their results differ, a warning says so.
    They do not work for more than 1,024 clusters, nor on devices other than CUDA's.
    """
    if device.type != "cuda" or n_clusters > MOST_CLUSTERS_OF_KERNELS:
        return False
    try:
        difference = _difference_by_kernels(device, n_clusters, n_features, dof, detach_target)
        reason = f"its results differ by {difference:.1g} from theirs"
    except Exception as error:  # a compiler and a driver can fail in any way
        difference, reason = math.inf, f"{type(error).__name__}: {error}".splitlines()[0]
    if difference < KERNEL_TOLERANCE:
        return True
    warnings.warn(
        "the DECEMber step runs on torch's own operations, which are slower: its Triton kernels do not work on "
        f"{device} ({reason}). Triton comes with torch for CUDA, and needs a C compiler.",
        UserWarning,
        stacklevel=3,
    )
    return False


def _difference_by_kernels(
    device: torch.device, n_clusters: int, n_features: int, dof: float, detach_target: bool
) -> float:
    """Return the largest relative difference between a step by kernels and one by plain operations."""
    random = np.random.default_rng(0)
    w, centers = (torch.as_tensor(random.standard_normal((n, n_features))) for n in (70, n_clusters))
    steps = []
    for by_kernels in (False, True):
        december = DECEMber(n_clusters, n_features, dof=dof, detach_target=detach_target, asynchronous=True).to(device)
        december.mixture.centers.copy_(centers / 4)
        december.mixture.scales.fill_(1)
        with torch.enable_grad():
            vectors = w.to(device, torch.float32).requires_grad_()
            december.prepare(vectors, by_kernels=by_kernels)
            loss = december.loss(vectors)
            (gradient,) = torch.autograd.grad(loss, vectors)
        december.m_step(vectors)
        steps.append([loss.detach(), gradient, december.mixture.centers, december.mixture.scales])
    return max(float((a - b).norm() / (1e-6 + a.norm())) for a, b in zip(*steps, strict=True))


class DECEMber(nn.Module):
    """Deep embedding clustering refined by expectation maximisation (paper, section 3 and algorithm 1).

    A Student-t mixture of the readout vectors that is trained along with the model. At every optimizer step,
    :meth:`loss` is added to the model's loss, times a strength, and :meth:`m_step` moves the clusters:
    the readouts follow the gradient, the clusters follow EM.

    Parameters
    ----------
    n_clusters, n_features, dof, weights, scale_bounds
        As for :class:`~december_plugin.clustering.student_t_mixture.StudentTMixture`. The scale bounds are absolute and
        depend on the scale of the responses.
    detach_target
        Whether the target distribution counts as a constant for the gradient, as in classic DEC. By default the
        gradient flows through it, as in the published experiments.
    scale_centers, empty_clusters
        As for :meth:`~december_plugin.clustering.student_t_mixture.StudentTMixture.m_step`.
    asynchronous
        Whether the host never waits for the device in :meth:`loss`, its backward pass and :meth:`m_step`, so that they
        can be recorded in a CUDA graph after a first call: :meth:`check_steps` then reports what is wrong with the
        vectors. Never for float64 vectors; by default for all others on a CUDA device.

    Attributes
    ----------
    mixture
        The :class:`~december_plugin.clustering.student_t_mixture.StudentTMixture`. Its buffers are this module's
        ``state_dict``.

    Raises
    ------
    SettingsError
        If a setting has a value that is not allowed.

    See Also
    --------
    StudentTMixture : The mixture, fitted to readout vectors that do not change.
    VanillaDEC : The loss without scales, whose centres the optimizer moves.
    december_plugin.training.december_trainer : Trains a model with this loss.

    References
    ----------
    Nellen NS, Turishcheva P, Vystrčilová M, Sridhar S, Gollisch T, Tolias AS, Ecker AS (2025). Learning to cluster
    neuronal function. *NeurIPS*. https://doi.org/10.48550/arXiv.2506.03293

    Xie J, Girshick R, Farhadi A (2016). Unsupervised deep embedding for clustering analysis. *ICML*.
    https://arxiv.org/abs/1511.06335

    Examples
    --------
    In your own training loop, on the readout vectors::

        w = stack_readout_vectors(model)  # december_plugin.embeddings.readout_vectors
        december.initialize(w, seed=seed)  # once, after the pretraining
        loss = model_loss + strength * december.loss(w)
        loss.backward()
        december.m_step(w)
        optimizer.step()

    A step without a model: the gradient pulls the readout vectors to their clusters, and EM moves the clusters.

    >>> import torch
    >>> from december_plugin.clustering import DECEMber
    >>> _ = torch.manual_seed(0)
    >>> readouts = torch.nn.Parameter(torch.cat([torch.randn(50, 3), torch.randn(50, 3) + 8]))
    >>> december = DECEMber(2, 3)
    >>> december.initialize(readouts.detach(), seed=0)
    >>> december.loss(readouts).backward()
    >>> december.m_step(readouts)
    >>> december.mixture.predict(readouts.detach()).bincount().tolist()
    [50, 50]

    In functional space the vectors are embedded before, and nothing else changes: the gradient flows to the readout
    vectors through the root of the feature covariance, a constant (:mod:`december_plugin.embeddings.space`)::

        space = EmbeddingSpace(space="functional", normalize="l2")
        root = covariance_root(feature_covariance(model, loaders))  # at the beginning, and after some steps again
        v = space.embed(stack_readout_vectors(model), root)
        loss = model_loss + strength * december.loss(v)
        loss.backward()
        december.m_step(v)
        optimizer.step()

    When the covariance is estimated again, ``december.carry_over(before, now)`` with the neurons' old and new
    embeddings keeps them in their clusters. :class:`VanillaDEC`, whose centres the optimizer moves, is otherwise used
    in the same way.
    """

    def __init__(
        self,
        n_clusters: int,
        n_features: int,
        *,
        dof: float = 2.1,
        weights: str = "uniform",
        scale_bounds: tuple[float, float] = (1e-4, 1e4),
        detach_target: bool = False,
        scale_centers: str = "new",
        empty_clusters: str = "keep",
        asynchronous: bool | None = None,
    ) -> None:
        super().__init__()
        self.mixture = StudentTMixture(n_clusters, n_features, dof=dof, weights=weights, scale_bounds=scale_bounds)
        self.detach_target = bool(detach_target)
        self.scale_centers = check_choice("scale_centers", scale_centers, SCALE_CENTERS)
        self.empty_clusters = check_choice("empty_clusters", empty_clusters, EMPTY_CLUSTERS)
        self.asynchronous = asynchronous
        self._last_e_step: tuple[Tensor, Tensor] | None = None
        self._seen: FiniteVectors | None = None
        self._by_kernels = False

    def initialize(self, w: Tensor, *, seed: int, n_init: int = KMEANS_RESTARTS, **settings: str) -> None:
        """Start the clusters from k-means on readout vectors (N, D); see :meth:`StudentTMixture.initialize`."""
        self.mixture.initialize(w, seed=seed, n_init=n_init, **settings)
        self._last_e_step = None

    def loss(self, w: Tensor) -> Tensor:
        """Clustering loss of an E-step, which is remembered for :meth:`m_step`.

        Parameters
        ----------
        w
            Readout vectors (N, D), usually on the model's graph.

        Returns
        -------
        Tensor
            KL divergence of the target from the responsibilities, summed over neurons, nats, scalar. Differentiable
            once in ``w``, through the target too unless ``detach_target``.

        Raises
        ------
        EmbeddingError
            If the vectors are not finite (if asynchronous, :meth:`check_steps` raises it), are not (N, ``n_features``),
            or the clusters were never initialised.
        """
        if not self.is_asynchronous(w):
            w, self._seen, self._by_kernels = self.mixture.check(w), None, False
        elif self._seen is None or not self._seen.is_of(w):
            w, mixture = self.mixture.check(w), self.mixture
            settings = mixture.n_clusters, mixture.n_features, mixture.dof, self.detach_target
            self.prepare(w, by_kernels=kernels_work(w.device, *settings))
        else:
            w = as_vectors(w, n_features=self.mixture.n_features)
        self._last_e_step = None  # frees its memory for the new one
        function = _step_kernels().KernelLoss if self._by_kernels else ClusteringLoss
        loss, q, u = function.apply(w, self.mixture, self.detach_target, self._seen)
        self._last_e_step = q.detach().t(), u.detach().t()
        return loss

    def prepare(self, w: Tensor, *, by_kernels: bool) -> None:
        """Prepare for asynchronous steps on as many vectors as ``w`` (N, D), by Triton kernels or plain operations.

        :meth:`loss` does this automatically, with the kernels if they work (:func:`kernels_work`).
        """
        self._by_kernels, self._seen = by_kernels, FiniteVectors(w)

    def is_asynchronous(self, w: Tensor) -> bool:
        """Whether steps on these vectors never let the host wait for their device."""
        if not isinstance(w, Tensor) or working_dtype(w) != torch.float32:
            return False
        return w.device.type == "cuda" if self.asynchronous is None else self.asynchronous

    def check_steps(self) -> None:
        """Check what asynchronous steps noted since the last check; the host waits for the device.

        Raises
        ------
        EmbeddingError
            If vectors of an E-step were not finite. The clusters have not been finite since then, either.
        """
        if self._seen is not None:
            self._seen.check()

    def m_step(self, w: Tensor) -> None:
        """M-step on readout vectors (N, D) with the responsibilities of the last :meth:`loss`.

        Raises
        ------
        EmbeddingError
            If there was no E-step, or it had another number of neurons.
        """
        self._m_step(w, self.scale_centers)

    def carry_over(self, w: Tensor, moved: Tensor) -> None:
        """Let the clusters follow their neurons to other vectors: E-step on ``w``, exact M-step on ``moved``.

        For a new feature covariance, for instance: distances have changed, but which neurons belong together has not.

        Parameters
        ----------
        w, moved
            The vectors before and after the change, (N, D).

        Raises
        ------
        EmbeddingError
            As :meth:`loss` and :meth:`m_step`.
        """
        with torch.no_grad():
            self.loss(w)
        self._m_step(moved, "new")

    def _m_step(self, w: Tensor, scale_centers: str) -> None:
        if self._last_e_step is None:
            raise EmbeddingError("m_step needs the responsibilities of an E-step, but there was none: call loss first.")
        self.mixture.m_step(
            w,
            *self._last_e_step,
            scale_centers=scale_centers,
            empty_clusters=self.empty_clusters,
            asynchronous=self.is_asynchronous(w),
            kernels=_step_kernels() if self._by_kernels else None,
        )

    def assign(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Labels (N,) int64 and confidences (N,) of readout vectors (N, D); see :meth:`StudentTMixture.assign`."""
        return self.mixture.assign(w)


class VanillaDEC(nn.Module):
    """Classic deep embedded clustering: unit scale, one degree of freedom, centres learned by gradient.

    ``q_ik`` is proportional to ``1 / (1 + ||w_i - mu_k||^2)``. Kept for the comparison of the paper's Figure 2: on
    readout vectors, whose scale is not free, the centres collapse when the gradient flows through the target, and fly
    apart when it is cut.

    Parameters
    ----------
    n_clusters
        Number of clusters ``K``, at least 1.
    n_features
        Number of features ``D`` of a readout vector, at least 1.
    detach_target
        As for :class:`DECEMber`.

    Attributes
    ----------
    centers
        Parameter (K, D), float64, NaN until :meth:`initialize`: give it to the optimizer.

    Raises
    ------
    SettingsError
        If a setting has a value that is not allowed.

    See Also
    --------
    DECEMber : The loss that learns scales and moves its centres by EM.
    target_distribution : The target that it pulls to.

    References
    ----------
    Xie J, Girshick R, Farhadi A (2016). Unsupervised deep embedding for clustering analysis. *ICML*.
    https://arxiv.org/abs/1511.06335

    Examples
    --------
    >>> import torch
    >>> from december_plugin.clustering import VanillaDEC
    >>> _ = torch.manual_seed(0)
    >>> readouts = torch.nn.Parameter(torch.cat([torch.randn(50, 3), torch.randn(50, 3) + 8]))
    >>> dec = VanillaDEC(2, 3)
    >>> dec.initialize(readouts.detach(), seed=0)
    >>> loss = dec.loss(readouts)
    >>> loss.backward()
    >>> bool(loss > 0), tuple(readouts.grad.shape)
    (True, (100, 3))
    """

    def __init__(self, n_clusters: int, n_features: int, *, detach_target: bool = False) -> None:
        super().__init__()
        self.n_clusters = check_count("n_clusters", n_clusters)
        self.n_features = check_count("n_features", n_features)
        self.detach_target = bool(detach_target)
        shape = (self.n_clusters, self.n_features)
        self.centers = nn.Parameter(torch.full(shape, torch.nan, dtype=torch.float64))

    @torch.no_grad()
    def initialize(self, w: Tensor, *, seed: int, n_init: int = KMEANS_RESTARTS) -> None:
        """Start the centres from k-means on readout vectors (N, D) (:func:`.kmeans_start`)."""
        w = as_vectors(w, n_features=self.n_features)
        self.centers.copy_(kmeans_start(w, self.n_clusters, seed=seed, n_init=n_init)[0])

    def loss(self, w: Tensor) -> Tensor:
        """KL divergence summed over neurons, nats, scalar, of readout vectors (N, D).

        Differentiable once in ``w`` and ``centers``, through the target too unless ``detach_target``.

        Raises
        ------
        EmbeddingError
            As :meth:`DECEMber.loss`.
        """
        log_q = self._log_responsibilities(w)
        p = target_distribution(log_q.exp())
        return kl_divergence(p.detach() if self.detach_target else p, log_q).to(working_dtype(w))

    def m_step(self, w: Tensor) -> None:
        """Do nothing: the optimizer moves the centres. It exists so that both losses are used in the same way."""

    @torch.no_grad()
    def assign(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Labels (N,) int64 and confidences (N,) of readout vectors (N, D)."""
        confidences, labels = self._log_responsibilities(w).max(dim=1)
        return labels, confidences.exp().to(working_dtype(w))

    def _log_responsibilities(self, w: Tensor | np.ndarray) -> Tensor:
        if torch.isnan(self.centers).any():
            raise EmbeddingError("There are no clusters yet: call initialize, or load a state_dict with their centres.")
        w = as_vectors(w, n_features=self.n_features)
        distances = squared_distances(w, self.centers, torch.ones_like(self.centers))
        return torch.log_softmax(-torch.log1p(distances), dim=1)
