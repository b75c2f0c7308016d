"""The model loss and the validation score of a core-readout model (Willeke et al. 2022, SENSORIUM 2022)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sized
from typing import Any

import torch
from neuralpredictors.measures.modules import PoissonLoss
from torch import Tensor, nn
from torch.utils.data import Subset

from december_plugin.errors import RecordingError, SettingsError
from december_plugin.evaluation.performance import (
    BLOCK,
    RELATIVE_RANGE,
    constant_neurons,
    predict_tier,
    single_trial_correlation,
)
from december_plugin.evaluation.predictions import last_frames, predict_on_device

Loaders = Mapping[str, Any]


class ModelLoss:
    """``sqrt(M / m) * sum(Poisson loss) + core regularizer + readout regularizer`` of one session's batch.

    ``m`` is the number of stimuli of the batch and ``M`` that of the session, so that sessions of different length
    count alike (Willeke et al. 2022, SENSORIUM 2022 baselines). By default ``M`` counts the training stimuli.
    SENSORIUM's trainer, and the published DECEMber code, take ``len(loader.dataset)``, which counts the trials of all
    tiers: that is ``trials="all"``. The loss of the responses then weighs more against the regularizers and the
    clustering loss, by the square root of the ratio of all trials to training trials.

    In movies, every predicted frame counts as a stimulus: the sum is over batch, predicted frames and neurons. All
    clips of a training tier have one length, so that ``M / m`` is also the ratio of the numbers of clips. Hence a movie
    that is cut into few long clips or many short ones has the same weight against the regularizers, given the same
    number of predicted frames in a batch and in the tier, and an image has the weight of a clip of one predicted frame.

    Parameters
    ----------
    model
        Has ``core.regularizer()`` and ``readout.regularizer(data_key)``, nnfabrik's usual shape. Without a core or a
        readout of that kind, ``model.regularizer(data_key)`` is used if it exists.
    train_loaders
        Data key to loader of the training tier.
    scale_loss
        Whether to use the factor ``sqrt(M / m)``.
    device
        Where the batches go.
    trials
        Which stimuli ``M`` counts: "train", or "all" of the dataset behind a session's training loader.
    """

    def __init__(
        self,
        model: nn.Module,
        train_loaders: Loaders,
        *,
        scale_loss: bool,
        device: torch.device,
        trials: str = "train",
    ):
        self.model = model
        self.criterion = PoissonLoss(avg=False)
        self.scale_loss = scale_loss
        self.device = device
        count = n_training_stimuli if trials == "train" else n_stimuli_of_all_tiers
        self.n_stimuli = {data_key: count(loader) for data_key, loader in train_loaders.items()}

    def __call__(self, data_key: str, batch: Any) -> Tensor:
        """Return the loss, a scalar, of a batch whose first two fields are stimuli and responses.

        Responses are (m, n_neurons), or (m, frames, n_neurons) for movies; a model that predicts fewer frames is
        compared with the last ones.
        """
        named = batch._asdict() if hasattr(batch, "_asdict") else dict(batch) if isinstance(batch, Mapping) else {}
        inputs, responses, *_ = named.values() if named else batch
        extras = {name: value.to(self.device) for name, value in list(named.items())[2:]}
        inputs, responses = inputs.to(self.device), responses.to(self.device)
        scale = math.sqrt(self.n_stimuli[data_key] / inputs.shape[0]) if self.scale_loss else 1.0
        prediction = self.model(inputs, data_key=data_key, **extras)
        compared = last_frames(responses, prediction)
        if prediction.shape != compared.shape:  # they might broadcast
            raise SettingsError(
                f"session {data_key!r} has responses of shape {tuple(responses.shape)} in a batch, but the model "
                f"predicts {tuple(prediction.shape)}; build the model from the same dataset entry."
            )
        return scale * self._poisson(prediction, compared) + self._regularizer(data_key)

    def _poisson(self, prediction: Tensor, responses: Tensor) -> Tensor:
        """Return the summed Poisson loss, which may be NaN or infinite: the training loop explains that."""
        try:
            return self.criterion(prediction, responses)
        except AssertionError:
            # neuralpredictors' git version asserts that its loss is finite.
            loss = (prediction - responses * torch.log(prediction + self.criterion.bias)).sum()
            if bool(torch.isfinite(loss)):
                raise
            return loss

    def _regularizer(self, data_key: str) -> Tensor:
        core, readout = getattr(self.model, "core", None), getattr(self.model, "readout", None)
        if hasattr(core, "regularizer") and hasattr(readout, "regularizer"):
            return core.regularizer() + readout.regularizer(data_key)  # type: ignore[union-attr]
        return self.model.regularizer(data_key)  # type: ignore[operator]


def n_training_stimuli(loader: Any) -> int:
    """Return how many stimuli one epoch of a loader shows: its sampler's length, or else its dataset's."""
    sampler = getattr(loader, "sampler", None)
    return len(sampler if isinstance(sampler, Sized) else loader.dataset)


def n_stimuli_of_all_tiers(loader: Any) -> int:
    """Return how many stimuli a loader's session has in all tiers: the length of its dataset.

    A ``Subset`` counts as the dataset that it was taken from. Datasets of movies hold the clips of one tier.
    """
    dataset = loader.dataset
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return len(dataset)


def check_trainable(model: nn.Module, dataloaders: Any) -> None:
    """Raise a :class:`SettingsError` unless model and dataloaders have the shape that nnfabrik's trainers expect."""
    if not isinstance(dataloaders, Mapping) or not {"train", "validation"} <= set(dataloaders):
        found = ", ".join(map(str, dataloaders)) if isinstance(dataloaders, Mapping) else type(dataloaders).__name__
        raise SettingsError(
            "the dataset function must return a dict with the tiers 'train' and 'validation', each a dict of data key "
            f"to loader; it returned: {found}."
        )
    readout = getattr(model, "readout", None)
    if not isinstance(readout, nn.ModuleDict):
        raise SettingsError(
            "the model needs an attribute `readout` that maps each data key to that session's readout (an "
            f"nn.ModuleDict, such as neuralpredictors' MultiReadoutBase); it is {type(readout).__name__}."
        )
    for tier in ("train", "validation"):
        sessions, known = set(dataloaders[tier]), set(readout.keys())
        if sessions != known:
            raise SettingsError(
                f"the {tier} tier has the sessions {sorted(sessions)}, but the model's readout has {sorted(known)}; "
                "build the model from the same dataset entry."
            )
    if "data_key" not in inspect.signature(model.forward).parameters and not any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in inspect.signature(model.forward).parameters.values()
    ):
        raise SettingsError("the model's forward must take `data_key`, as neuralpredictors' FiringRateEncoder does.")


def validation_correlation(model: nn.Module, loaders: Loaders, *, device: torch.device) -> float:
    """Return the mean over all neurons of the single-trial correlation on a tier (dimensionless, -1 to 1).

    For movies, the correlation is over all predicted frames of all clips. A session in which no neuron's response
    varies was not measured on the tier and does not count.

    Raises
    ------
    RecordingError
        If no session was measured.
    """
    total, n_neurons = (summed_correlation if device.type == "cpu" else summed_on_device)(model, loaders, device)
    if not n_neurons:
        raise RecordingError(
            "all validation responses of all sessions are constant, so a training cannot be judged by them. Assign "
            "measured trials to the tier 'validation'."
        )
    return total / n_neurons


def summed_correlation(model: nn.Module, loaders: Loaders, device: torch.device) -> tuple[float, int]:
    """Return the sum of the correlations of the sessions that were measured, and the number of their neurons."""
    total, n_neurons = 0.0, 0
    for responses, predictions in predict_tier(model, loaders, device=device).values():
        if constant_neurons(responses, responses).all():
            continue
        correlations = single_trial_correlation(responses, predictions)
        total += float(correlations.sum())
        n_neurons += len(correlations)
    return total, n_neurons


def summed_on_device(model: nn.Module, loaders: Loaders, device: torch.device) -> tuple[float, int]:
    """Do the same on the device, and wait for it only once."""
    total = torch.zeros((), dtype=torch.float64, device=device)
    n_neurons = torch.zeros_like(total)
    for _, responses, predictions, _ in predict_on_device(model, loaders, device=device):
        correlations, measured = correlations_on_device(responses.to(device), predictions)
        counts = measured.any()
        total += torch.where(counts, correlations.sum(), 0.0)
        n_neurons += torch.where(counts, float(len(correlations)), 0.0)
    summed, counted = torch.stack([total, n_neurons]).tolist()
    return summed, int(counted)


def correlations_on_device(responses: Tensor, predictions: Tensor) -> tuple[Tensor, Tensor]:
    """Return what :func:`single_trial_correlation` does, computed where the tensors are.

    Parameters
    ----------
    responses, predictions
        (trials, n), at least two trials.

    Returns
    -------
    correlations, measured
        (n,) float64, and (n,) bool: whether the neuron's response varies.
    """
    parts = zip(responses.split(BLOCK, dim=1), predictions.split(BLOCK, dim=1), strict=True)
    scores = [_correlations(measured.double(), predicted.double()) for measured, predicted in parts]
    correlations, varies = (torch.cat(values) for values in zip(*scores, strict=True))
    return correlations, varies


def _correlations(responses: Tensor, predictions: Tensor) -> tuple[Tensor, Tensor]:
    constant = _are_constant(responses)
    x, y = _standardized(responses), _standardized(predictions)
    correlations = (x * y).sum(dim=0).clamp(-1.0, 1.0)
    return torch.where(constant | _are_constant(predictions), 0.0, correlations), ~constant


def _are_constant(values: Tensor) -> Tensor:
    return values.amax(dim=0) - values.amin(dim=0) <= RELATIVE_RANGE * values.abs().amax(dim=0)


def _standardized(values: Tensor) -> Tensor:
    centred = values - values.mean(dim=0)
    centred = centred / centred.abs().amax(dim=0)
    return centred / centred.square().sum(dim=0).sqrt()
