"""Functional embeddings: neurons compared by the drives that their readouts predict, whatever the basis of the core.

For every invertible ``A`` the core ``A Phi`` with the readouts ``A^-T w_i`` is the same model, so distances between
readout vectors depend on a basis that training picks by chance. With the feature covariance ``Sigma``, the mean over
neurons ``i`` of the covariance over stimuli ``x`` of what the readout receives, ``phi_i(x)`` (D,),

    v_i = Sigma^(1/2) w_i,    ||v_i - v_j||^2 = Var over x of <w_i - w_j, phi(x)>

do not, and channels that are redundant or dead do not count. ``Sigma`` may be singular: nothing is inverted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from december_plugin.embeddings.batches import evaluating
from december_plugin.embeddings.readout_vectors import (
    ReadoutEmbeddings,
    readout_embeddings,
    unit_ids_of,
)
from december_plugin.embeddings.received_features import (
    check_drives,
    core_output_and_shift,
    core_outputs,
    received_features,
)
from december_plugin.embeddings.space import EmbeddingSpace, Normalize, covariance_root
from december_plugin.embeddings.stimuli import loaders_of_a_tier, sampled_stimuli
from december_plugin.errors import EmbeddingError
from december_plugin.validation.checks import check_integer, check_seed

N_IMAGES = 500
MAX_NEURONS = 5_000
FEWEST_IMAGES = 10  # of a session, if it has as many
VALUES_AT_ONCE = 1 << 21  # of features in float64: 16 MiB


class CovarianceEstimate(NamedTuple):
    """A feature covariance, and the numbers of stimuli and neurons from which it was estimated.

    Attributes
    ----------
    covariance
        ``Sigma`` (D, D) float64.
    n_images
        Number of stimuli of all sessions: images, or frames of movies.
    n_neurons
        Number of neurons over which it is a mean.
    """

    covariance: npt.NDArray[np.float64]
    n_images: int
    n_neurons: int


def feature_covariance(
    model: nn.Module,
    batches: Any,
    *,
    n_images: int | None = N_IMAGES,
    max_neurons: int | None = MAX_NEURONS,
    seed: int = 0,
) -> npt.NDArray[np.float64]:
    """Return the covariance of what a model's readouts receive from the core, ``Sigma``.

    The model runs in evaluation mode, without gradients, where it is; afterwards the mode of each of its modules and
    all random states are as before. Features are added up in float64 as they come and never held together.

    Parameters
    ----------
    model
        Has ``readout``, data key to the session's readout; called as ``model(inputs, data_key=..., **extras)`` with
        whatever else a batch has by name (behaviour, pupil centre).
    batches
        Data key to loader of one tier, or tier to data key to loader: then the training tier. A loader is a torch
        ``DataLoader``, or an iterable of batches, of which the first are taken. Or stimuli for all sessions,
        (stimuli, channels, height, width), of a model with ``core``: then no shifter moves the positions.
    n_images
        How many images, or clips of movies, of all sessions together, drawn at random, as many of each session and at
        least 10 of each; None for all. Every frame of a clip that the core returns is a stimulus.
    max_neurons
        Number of neurons at most, drawn at random from all sessions; None for all.
    seed
        Seed of both samples: the same seed gives the same bytes on the CPU.

    Returns
    -------
    ndarray
        ``Sigma`` (D, D) float64, symmetric, in squared units of the core's output, with ``n - 1`` in the denominator.

    Raises
    ------
    EmbeddingError
        If the class of a readout is unknown, a session has no loader or fewer than two stimuli, or features are not
        finite.

    See Also
    --------
    functional_embeddings : Readout vectors times the root of this covariance.
    december_plugin.rotation.cyclic_mean : The covariance averaged over orientations.

    Examples
    --------
    >>> import torch
    >>> from december_plugin.embeddings import feature_covariance, noise_probes
    >>> from december_plugin.models import stacked_core_gaussian_readout
    >>> shape = {"input_dimensions": [1, 1, 16, 16], "output_dimension": 5, "mean_responses": None}
    >>> model = stacked_core_gaussian_readout(
    ...     None, seed=0, data_info={"1-1-1": shape}, hidden_channels=4, layers=1, grid_mean_predictor=None
    ... )
    >>> feature_covariance(model, noise_probes((1, 16, 16), n=20)).shape
    (4, 4)
    """
    return estimate_covariance(model, batches, n_images=n_images, max_neurons=max_neurons, seed=seed).covariance


def estimate_covariance(
    model: nn.Module,
    batches: Any,
    *,
    n_images: int | None = N_IMAGES,
    max_neurons: int | None = MAX_NEURONS,
    seed: int = 0,
) -> CovarianceEstimate:
    """Return what :func:`feature_covariance` does, with the numbers of stimuli and neurons."""
    for name, value in (("n_images", n_images), ("max_neurons", max_neurons)):
        if value is not None:
            check_integer(name, value, minimum=2 if name == "n_images" else 1)
    check_seed("seed", seed)
    with evaluating(model), torch.no_grad():
        chosen = chosen_neurons(model, max_neurons, seed)
        sums = _sums_of_sessions(model, chosen, received_from_core(model, batches, list(chosen), n_images, seed))
        n_neurons = sum(len(neurons) for neurons in chosen.values())
        covariance = torch.stack([session.covariances() for session in sums.values()]).sum(dim=0) / n_neurons
    if not covariance.isfinite().all():
        raise EmbeddingError(
            "what the readouts receive from the core holds NaN or infinite values; check the model and the stimuli."
        )
    return CovarianceEstimate(
        covariance=((covariance + covariance.mT) / 2).cpu().numpy(),
        n_images=sum(session.n_samples for session in sums.values()),
        n_neurons=n_neurons,
    )


def functional_embeddings(
    model: nn.Module,
    batches: Any,
    *,
    normalize: Normalize = "l2",
    unit_ids: Mapping[str, Any] | None = None,
    n_images: int | None = N_IMAGES,
    max_neurons: int | None = MAX_NEURONS,
    seed: int = 0,
) -> ReadoutEmbeddings:
    """Return the functional embeddings ``v_i = Sigma^(1/2) w_i`` of all neurons, with their identities.

    Parameters
    ----------
    model, batches, n_images, max_neurons, seed
        As for :func:`feature_covariance`.
    normalize
        "none": in standard deviations of the drive. "l2": directions, vectors of length 1, whose inner products are the
        correlations of drives over stimuli, for neurons at one place; they say what a neuron is tuned to, but not how
        strongly it is driven.
    unit_ids
        As for :func:`~december_plugin.embeddings.readout_vectors.readout_embeddings`; None: those of the loaders, if
        they have them for all sessions.

    Returns
    -------
    ReadoutEmbeddings
        ``vectors`` (N, D) float64, sessions in the order of the model's readout.

    Raises
    ------
    SettingsError
        If a setting is not allowed.
    EmbeddingError
        As for :func:`feature_covariance`.

    See Also
    --------
    readout_embeddings : The readout vectors, without the covariance.
    feature_covariance : The covariance by which they are weighted.
    fingerprints : Predicted responses, which compare models of any architecture.

    Examples
    --------
    >>> from december_plugin.embeddings import functional_embeddings, noise_probes
    >>> from december_plugin.models import stacked_core_gaussian_readout
    >>> shape = {"input_dimensions": [1, 1, 16, 16], "output_dimension": 5, "mean_responses": None}
    >>> model = stacked_core_gaussian_readout(
    ...     None, seed=0, data_info={"1-1-1": shape}, hidden_channels=4, layers=1, grid_mean_predictor=None
    ... )
    >>> embeddings = functional_embeddings(model, noise_probes((1, 16, 16), n=20))
    >>> embeddings.vectors.shape
    (5, 4)
    """
    space = EmbeddingSpace(space="functional", normalize=normalize)
    if unit_ids is None and isinstance(batches, Mapping):
        known = unit_ids_of(batches)
        unit_ids = known if set(known) >= set(model.readout) else None  # type: ignore[arg-type]
    readouts = readout_embeddings(model, unit_ids=unit_ids)
    covariance = feature_covariance(model, batches, n_images=n_images, max_neurons=max_neurons, seed=seed)
    return ReadoutEmbeddings(
        vectors=space.embed(readouts.vectors.astype(np.float64), covariance_root(covariance)),
        data_keys=readouts.data_keys,
        unit_positions=readouts.unit_positions,
        unit_ids=readouts.unit_ids,
    )


class _PooledSums:
    """Sums over the stimuli of a session, from which the covariances of its neurons are computed.

    Features are counted from their mean over the first stimuli, so that a large mean costs no digits.
    """

    def __init__(self, n: int, n_features: int, device: torch.device):
        self.n_samples = 0
        self._origins = torch.zeros(n, n_features, dtype=torch.float64, device=device)
        self._sums = torch.zeros_like(self._origins)
        self._products = torch.zeros(n_features, n_features, dtype=torch.float64, device=device)

    def add_all(self, readout: nn.Module, core_output: Tensor, shift: Tensor | None, neurons: Tensor) -> None:
        """Add what the neurons receive of a few stimuli, some neurons after the other."""
        n_samples = math.prod((len(core_output), *core_output.shape[2:-2]))
        size = max(1, VALUES_AT_ONCE // (n_samples * self._sums.shape[1]))
        if hasattr(readout, "embedding_features"):
            size = len(neurons)  # it returns those of all neurons in any case
        for start in range(0, len(neurons), size):
            rows = slice(start, start + size)
            features = received_features(readout, core_output, shift=shift, neurons=neurons[rows]).double()
            n_samples = len(features)
            self._add(features, rows)
        self.n_samples += n_samples

    def _add(self, features: Tensor, rows: slice) -> None:
        if self.n_samples == 0:
            self._origins[rows] = features.mean(dim=0)
        features = features - self._origins[rows]
        self._sums[rows] += features.sum(dim=0)
        self._products += torch.bmm(features.mT, features).sum(dim=0)

    def covariances(self) -> Tensor:
        """Return the sum of the neurons' covariances, (D, D)."""
        return (self._products - self._sums.mT @ self._sums / self.n_samples) / (self.n_samples - 1)


def chosen_neurons(model: nn.Module, max_neurons: int | None, seed: int) -> dict[str, Tensor]:
    """Return the positions within their sessions of the neurons over which :func:`feature_covariance` is a mean.

    Sessions of which none is drawn are left out.
    """
    sessions = readout_embeddings(model).sessions
    total = max(rows.stop for rows in sessions.values())
    everyone = np.arange(total)
    if max_neurons is not None and max_neurons < total:
        everyone = np.sort(np.random.default_rng(seed).choice(total, size=max_neurons, replace=False))
    chosen = {
        data_key: torch.from_numpy(everyone[(everyone >= rows.start) & (everyone < rows.stop)] - rows.start)
        for data_key, rows in sessions.items()
    }
    return {data_key: neurons for data_key, neurons in chosen.items() if len(neurons)}


class Received(NamedTuple):
    """What the readout of a session receives from the core for a few stimuli.

    Attributes
    ----------
    data_key
        Key of the session.
    core_output, shift
        As returned by :func:`~december_plugin.embeddings.received_features.core_output_and_shift`.
    inputs, extras
        The stimuli, as :func:`~december_plugin.embeddings.stimuli.sampled_stimuli` yields them; None and nothing for
        stimuli that are shown without a session.
    """

    data_key: str
    core_output: Tensor
    shift: Tensor | None
    inputs: Tensor | None = None
    extras: Mapping[str, Any] = {}


def received_from_core(
    model: nn.Module, batches: Any, data_keys: list[str], n_images: int | None, seed: int
) -> Iterator[Received]:
    """Yield what the readouts of sessions receive, one session after the other, a few stimuli at a time.

    Parameters
    ----------
    model, batches, n_images, seed
        As for :func:`feature_covariance`, which takes the same stimuli; the model must be in evaluation mode.
    data_keys
        Keys of the sessions.
    """
    if isinstance(batches, Tensor | np.ndarray):
        for core_output in core_outputs(model, batches):
            for data_key in data_keys:
                yield Received(data_key, core_output, None)
        return
    n_of_each = None if n_images is None else max(FEWEST_IMAGES, -(-n_images // len(data_keys)))
    for index, (data_key, loader) in enumerate(loaders_of_a_tier(batches, data_keys).items()):
        for inputs, extras in sampled_stimuli(loader, n_of_each, seed=(seed, index)):
            output, shift = core_output_and_shift(model, data_key, inputs, extras)
            yield Received(data_key, output, shift, inputs, extras)


def _sums_of_sessions(
    model: nn.Module, chosen: Mapping[str, Tensor], received: Iterator[Received]
) -> dict[str, _PooledSums]:
    sums: dict[str, _PooledSums] = {}
    for data_key, core_output, shift, *_ in received:
        readout: nn.Module = model.readout[data_key]  # type: ignore[index, assignment]
        neurons = chosen[data_key].to(core_output.device)
        if data_key not in sums:
            few = None if shift is None else shift[:2]
            n_features = check_drives(readout, core_output[:2], shift=few, name=data_key)
            sums[data_key] = _PooledSums(len(neurons), n_features, core_output.device)
        sums[data_key].add_all(readout, core_output, shift, neurons)
    for data_key in chosen:
        if data_key not in sums or sums[data_key].n_samples < 2:
            raise EmbeddingError(
                f"session {data_key!r} has fewer than two stimuli in this tier, of which no covariance can be taken; "
                "use another tier, or leave the session out of the model."
            )
    return sums
