"""What DECEMber adds to a training: the clustering loss, its strength, and the EM updates of the mixture."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from december_plugin.clustering.losses import DECEMber
from december_plugin.embeddings.readout_vectors import stack_readout_vectors
from december_plugin.embeddings.space import checked_covariance, covariance_root
from december_plugin.errors import MisfitError, SettingsError
from december_plugin.training.settings import AUTO_GRADIENT_RATIO, LOCK_IN_GRADIENT_RATIO, ClusteringSettings

logger = logging.getLogger(__name__)

COVARIANCE = "covariance"  # next to the mixture in a state
# Takes a model and returns its feature covariance (D, D).
Measure = Callable[[nn.Module], npt.NDArray[np.float64]]


class ClusteringPhase:
    """The clustering part of a DECEMber training (Algorithm 1 of the paper).

    :meth:`begin` starts the mixture by k-means on the readout vectors, or :meth:`resume` from the state of an
    interrupted training; :meth:`begin_epoch` comes before the first step of an epoch; :meth:`backward` is called at
    every optimizer step, between the backward pass of the model loss and the optimizer's step; :meth:`end_epoch` after
    the last step of an epoch.

    Parameters
    ----------
    settings
        Settings of the clustering. If its space is functional, "readout vectors" below are functional embeddings, and
        :meth:`measure_by` must be called first.
    """

    def __init__(self, settings: ClusteringSettings):
        self.settings, self.space = settings, settings.embedding_space
        self.regularizer: DECEMber | None = None
        # In functional space: what measures the covariance, the current one (D, D) float64 on the CPU, and its root on
        # the model's device, always in the same memory, where a recorded step reads it.
        self._measure: Measure | None = None
        self._covariance: Tensor | None = None
        self._root: Tensor | None = None
        self._just_measured = False
        self.strength: float | None = None
        self.gradient_ratio: float | None = None
        self._first_norms: Tensor | None = None

    @property
    def began(self) -> bool:
        """Whether there is a mixture."""
        return self.regularizer is not None

    def check(self, model: nn.Module, *, seed: int) -> None:
        """Raise a :class:`SettingsError` for more clusters than neurons, or a seed that k-means cannot take."""
        n_neurons = len(stack_readout_vectors(model))
        if self.settings.n_clusters > n_neurons:
            raise MisfitError(
                f"n_clusters is {self.settings.n_clusters}, more than the {n_neurons} neurons of all sessions.",
                setting="n_clusters",
            )
        if not 0 <= seed < 2**32:
            raise SettingsError(f"the seed is {seed}; k-means needs one from 0 to {2**32 - 1}.", setting="seed")

    def measure_by(self, measure: Measure, model: nn.Module) -> None:
        """Measure the feature covariance by this function, after trying it on the model.

        Raises
        ------
        EmbeddingError
            For instance, if the model's readouts do not say what they receive from the core.
        """
        checked_covariance(measure(model), n_features=stack_readout_vectors(model).shape[1])
        self._measure = measure

    def begin(self, model: nn.Module, *, seed: int) -> None:
        """Start the mixture on the current readout vectors: from k-means, or from mixtures fitted from there."""
        self.regularizer = self._new_regularizer(stack_readout_vectors(model))
        self._measure_covariance(model)
        self._just_measured = True
        vectors = self.vectors(model).detach()
        self.regularizer.initialize(
            vectors,
            seed=seed,
            n_init=self.settings.kmeans_n_init,
            kmeans_seeds=self.settings.kmeans_seeds,
            start_scales=self.settings.start_scales,
        )
        if self.settings.mixture_n_init:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # the training continues EM
                self.regularizer.mixture.fit(vectors, seed=seed, n_init=self.settings.mixture_n_init)
        self.initial_labels = self.regularizer.assign(vectors)[0]

    def resume(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`training_state`, instead of :meth:`begin`."""
        vectors = stack_readout_vectors(model)
        self.regularizer = self._new_regularizer(vectors)
        self.load_state_dict(state["mixture"])
        self.initial_labels = state["initial_labels"].to(vectors.device)
        self.strength, self.gradient_ratio = state["strength"], state["gradient_ratio"]

    def training_state(self) -> dict[str, Any]:
        """Return everything that the next epoch depends on, not copied; its part :meth:`state_dict` can be restored."""
        return {
            "mixture": self.state_dict(),
            "initial_labels": self.initial_labels,
            "strength": self.strength,
            "gradient_ratio": self.gradient_ratio,
        }

    def _new_regularizer(self, vectors: Tensor) -> DECEMber:
        settings = self.settings
        if self.space.is_functional:
            self._root = vectors.new_empty((vectors.shape[1], vectors.shape[1]))
        return DECEMber(
            settings.n_clusters,
            vectors.shape[1],
            dof=settings.dof,
            weights=settings.weights,
            scale_bounds=settings.scale_bounds,
            detach_target=settings.detach_target,
            scale_centers=settings.scale_centers,
            empty_clusters=settings.empty_clusters,
        ).to(vectors.device)

    def vectors(self, model: nn.Module) -> Tensor:
        """Return the readout vectors in the space of the clusters, (N, D), on the autograd graph."""
        return self.space.embed(stack_readout_vectors(model), self._root)

    def _measure_covariance(self, model: nn.Module) -> None:
        if self.space.is_functional:
            assert self._measure is not None, "measure_by() comes first"
            self._take_covariance(torch.as_tensor(self._measure(model)))

    def _take_covariance(self, covariance: Tensor) -> None:
        """Embed by this covariance (D, D) from now on."""
        assert self._root is not None
        self._covariance = covariance
        self._root.copy_(torch.as_tensor(covariance_root(covariance)))

    def begin_epoch(self, model: nn.Module) -> None:
        """Measure the feature covariance again, if the settings say so; the neurons stay in their clusters."""
        anew = self.space.is_functional and self.settings.covariance_refresh == "epoch" and not self._just_measured
        self._just_measured = False
        if anew:
            assert self.regularizer is not None, "begin() comes first"
            before = self.vectors(model).detach()
            self._measure_covariance(model)
            self.regularizer.carry_over(before, self.vectors(model).detach())

    def backward(self, model: nn.Module) -> Tensor:
        """E-step, clustering loss and its gradient, M-step; return the loss, without its strength.

        The gradients of the model loss must have been accumulated already: the first call compares the two. On a CUDA
        device the host does not wait here; checks and messages wait until :meth:`end_epoch`.
        """
        assert self.regularizer is not None, "begin() comes first"
        vectors = self.vectors(model)
        loss = self.regularizer.loss(vectors)
        if self.strength is None and self._first_norms is None:
            self._first_norms = self._gradient_norms(model, loss)
            if not self.regularizer.is_asynchronous(vectors):
                self._choose_strength()
        strength = self.strength if self.strength is not None else self._strength_on_device(loss)
        (strength * loss).backward()
        self.regularizer.m_step(vectors.detach())
        return loss.detach()

    def end_epoch(self) -> None:
        """Check what the steps of an epoch left on the device.

        Raises
        ------
        EmbeddingError
            If readout vectors of a step were not finite.
        """
        if self._first_norms is not None:
            self._choose_strength()
        if self.regularizer is not None:
            self.regularizer.check_steps()

    def _gradient_norms(self, model: nn.Module, loss: Tensor) -> Tensor:
        """Return the squared norms of dL_model/dW and dKL/dW (2,), float64.

        Both norms are over the parameters that make up the readout vectors.
        """
        parameters = [parameter for parameter in model.readout.parameters() if parameter.requires_grad]  # type: ignore[union-attr]
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        pairs = [
            (parameter.grad, gradient)
            for parameter, gradient in zip(parameters, gradients, strict=True)
            if gradient is not None and parameter.grad is not None
        ]
        zero = loss.new_zeros((), dtype=torch.float64)
        sides = zip(*pairs, strict=True) if pairs else ((), ())
        return torch.stack([sum((g.double().square().sum() for g in side), zero) for side in sides])

    def _strength_on_device(self, loss: Tensor) -> Tensor | float:
        """Return the strength that :meth:`_choose_strength` will choose, before the host has seen it."""
        if self.settings.strength != "auto":
            return float(self.settings.strength)
        assert self._first_norms is not None
        model_norm, clustering_norm = self._first_norms.sqrt()
        strength = AUTO_GRADIENT_RATIO * model_norm / clustering_norm
        return torch.where((strength > 0) & strength.isfinite(), strength, 1).to(loss.dtype)

    def _choose_strength(self) -> None:
        """Choose the strength, and record ``R = strength * ||dKL/dW|| / ||dL_model/dW||`` at the first step."""
        assert self._first_norms is not None
        model_norm, clustering_norm = (square**0.5 for square in self._first_norms.tolist())
        self._first_norms = None
        ratio = clustering_norm / model_norm if model_norm > 0 else float("inf")
        if self.settings.strength == "auto":
            # A clustering loss without any gradient (K = 1) leaves nothing to scale.
            strength = AUTO_GRADIENT_RATIO / ratio if 0 < ratio < float("inf") else 1.0
        else:
            strength = float(self.settings.strength)
        self.strength, self.gradient_ratio = strength, strength * ratio
        logger.info("clustering strength %.4g, gradient ratio %.3g", strength, self.gradient_ratio)
        if self.locked_in:
            warnings.warn(
                f"the clustering loss is so strong (gradient ratio {self.gradient_ratio:.2g}, above "
                f"{LOCK_IN_GRADIENT_RATIO:g}) that it will mostly freeze the partition that k-means found at the end "
                "of the pretraining. Lower strength, or use strength='auto'.",
                UserWarning,
                stacklevel=2,
            )

    @property
    def locked_in(self) -> bool:
        """Whether the strength is so high that the loss only freezes the pretraining's partition."""
        return self.gradient_ratio is not None and self.gradient_ratio > LOCK_IN_GRADIENT_RATIO

    def changed_assignments(self, model: nn.Module) -> float:
        """Return the fraction of neurons that are no longer in the cluster that k-means gave them at the start."""
        assert self.regularizer is not None
        labels, _ = self.regularizer.assign(self.vectors(model).detach())
        return float((labels != self.initial_labels).double().mean())

    def state_dict(self) -> dict[str, Any]:
        """Return the mixture's state, and the feature covariance of its space, if it has one."""
        assert self.regularizer is not None
        mixture = self.regularizer.state_dict()
        return mixture if self._covariance is None else {**mixture, COVARIANCE: self._covariance}

    def tensors(self) -> list[Tensor]:
        """Return the tensors of the mixture, which :meth:`backward` changes in place."""
        assert self.regularizer is not None
        return list(self.regularizer.buffers())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the mixture and its space."""
        assert self.regularizer is not None
        self.regularizer.load_state_dict({name: value for name, value in state.items() if name != COVARIANCE})
        if COVARIANCE in state:
            self._take_covariance(state[COVARIANCE])

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the space of the model's restored weights and, if the settings say so, their mixture."""
        if self.settings.restore_mixture:
            self.load_state_dict(state)
        elif COVARIANCE in state:
            self._take_covariance(state[COVARIANCE])

    def output(self) -> dict[str, Any]:
        """Return the fitted mixture and the strength that was used, for the trainer's output."""
        assert self.regularizer is not None
        mixture = self.regularizer.mixture

        def as_numpy(tensor: Tensor) -> np.ndarray:
            return tensor.detach().cpu().double().numpy()

        return {
            "mixture": {
                "centers": as_numpy(mixture.centers),
                "scales": as_numpy(mixture.scales),
                "mixing_weights": as_numpy(mixture.mixing_weights),
                "dof": float(self.settings.dof),
                "weights": self.settings.weights,
                "space": self.settings.space,
                "normalize": self.settings.normalize,
                "covariance": None if self._covariance is None else as_numpy(self._covariance),
            },
            "clustering": {
                "n_clusters": self.settings.n_clusters,
                "strength": self.strength,
                "strength_setting": self.settings.strength,
                "gradient_ratio": self.gradient_ratio,
                "locked_in": self.locked_in,
            },
        }
