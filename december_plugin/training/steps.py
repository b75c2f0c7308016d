"""The optimizer steps of an epoch: gradients of one batch of every session, the clustering's, and a step.

Nothing here waits for the device before the end of the epoch.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from neuralpredictors.training import LongCycler
from torch import Tensor, nn

from december_plugin.training.clustering_phase import ClusteringPhase
from december_plugin.training.launches import CudaRecorder, Launches, Recorder
from december_plugin.training.objective import ModelLoss
from december_plugin.training.optimizer import Adam
from december_plugin.training.resident import ResidentLoader

logger = logging.getLogger(__name__)

# Packages whose layers keep nothing in Python that changes from step to step.
KNOWN_PACKAGES = ("torch", "neuralpredictors", "december_plugin")


class OptimizerSteps:
    """Epochs of optimizer steps, each over one batch of every session.

    Parameters
    ----------
    model, loss, optimizer
        What is trained, and how.
    loaders
        Data key to loader of the training tier.
    clustering
        What is added to the loss, or None.
    device
        Where the model is.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: ModelLoss,
        optimizer: Adam,
        loaders: Mapping[str, Any],
        *,
        clustering: ClusteringPhase | None,
        device: torch.device,
    ):
        self.model, self.loss, self.optimizer, self.clustering = model, loss, optimizer, clustering
        self.loaders = loaders
        self.total = torch.zeros((), dtype=torch.float64, device=device)
        self.clustering_total = torch.zeros_like(self.total)

    def run_epoch(self) -> tuple[float, float]:
        """Return the mean loss per step of the model, and that of the clustering (NaN without one)."""
        self.total.zero_()
        self.clustering_total.zero_()
        self.clear_gradients()
        n_steps = 0
        for position, (data_key, batch) in enumerate(LongCycler(self.served()), start=1):
            self.add_gradients(data_key, batch)
            if position % len(self.loaders) == 0:
                self.update()
                n_steps += 1
        if self.clustering is not None:
            self.clustering.end_epoch()
        mean_clustering = (self.clustering_total / n_steps).item() if self.clustering is not None else math.nan
        return (self.total / n_steps).item(), mean_clustering

    def release(self) -> None:
        """Free what these steps took; they are no longer used."""

    def served(self) -> Mapping[str, Any]:
        """Return, for each data key, the sequence of arguments of :meth:`add_gradients`."""
        return self.loaders

    def add_gradients(self, data_key: str, batch: Any) -> None:
        """Add the gradients of the model loss of a session's batch."""
        loss = self.loss(data_key, batch)
        loss.backward()
        self.total += loss.detach()

    def update(self) -> None:
        """Add the clustering's gradients, and step."""
        if self.clustering is not None:
            self.clustering_total += self.clustering.backward(self.model)
        self.optimizer.step()
        self.clear_gradients()

    def clear_gradients(self) -> None:
        """Begin the next step's gradients."""
        self.optimizer.zero_grad()


class RecordedSteps(OptimizerSteps):
    """The same steps with their launches recorded: one replay for each session's batch, one for the update.

    The last batch of a session may be smaller; batches of each size have their own recording.

    Parameters
    ----------
    model, loss, optimizer, clustering, device
        As for :class:`OptimizerSteps`.
    loaders
        Data key to :class:`~december_plugin.training.resident.ResidentLoader`: the batches are made within the
        recordings.
    recorder
        Recorder of the device.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: ModelLoss,
        optimizer: Adam,
        loaders: Mapping[str, ResidentLoader],
        *,
        clustering: ClusteringPhase | None,
        device: torch.device,
        recorder: Recorder,
    ):
        super().__init__(model, loss, optimizer, loaders, clustering=clustering, device=device)
        self._launches = Launches(recorder, self._changing)
        self._update = self._launches.recorded(super().update, "the optimizer's step")
        self._batches: dict[tuple[str, int], tuple[list[Tensor], Callable[[], None]]] = {}

    def release(self) -> None:
        """Give back the memory of the recordings, which refer to these steps and these to them."""
        self._batches.clear()
        self._update = super().update

    def served(self) -> Mapping[str, Any]:
        """Return, for each data key, the contents of the batches."""
        return {data_key: loader.draws for data_key, loader in self.loaders.items()}

    def add_gradients(self, data_key: str, batch: Sequence[Tensor]) -> None:
        """Add the gradients of the model loss of what was drawn for a session's batch."""
        key = data_key, len(batch[0])
        if key not in self._batches:
            self._batches[key] = self._recorded_batch(data_key, batch)
        places, function = self._batches[key]
        for place, drawn in zip(places, batch, strict=True):
            place.copy_(drawn, non_blocking=True)
        function()

    def update(self) -> None:
        """Add the clustering's gradients, and step."""
        if self.clustering is not None and self.clustering.strength is None:
            super().update()  # the strength is on the device in the first epoch, and a number in later ones
        else:
            self._update()

    def clear_gradients(self) -> None:
        """Begin the next step's gradients, in the same memory."""
        self.optimizer.zero_grad(set_to_none=False)

    def _recorded_batch(self, data_key: str, batch: Sequence[Tensor]) -> tuple[list[Tensor], Callable[[], None]]:
        places = [torch.empty_like(drawn, device=self.total.device) for drawn in batch]
        loader, add_gradients = self.loaders[data_key], super().add_gradients

        def of_places() -> None:
            add_gradients(data_key, loader.batch(places))

        name = f"a batch of {len(batch[0])} trials of session {data_key!r}"
        return places, self._launches.recorded(of_places, name)

    def _changing(self) -> list[list[Tensor]]:
        """Return all tensors that a step changes, by kind."""
        parameters: list[Tensor] = list(self.model.parameters())
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        others = [*self.model.buffers(), self.total, self.clustering_total]
        others += [
            value for state in self.optimizer.state.values() for value in state.values() if isinstance(value, Tensor)
        ]
        others += self.clustering.tensors() if self.clustering is not None else []
        return [parameters, gradients, *([tensor] for tensor in others)]


def optimizer_steps(
    model: nn.Module,
    loss: ModelLoss,
    optimizer: Adam,
    loaders: Mapping[str, Any],
    *,
    clustering: ClusteringPhase | None,
    device: torch.device,
    cuda_graphs: bool | str,
) -> OptimizerSteps:
    """Return the steps of a phase of a training, recorded if the setting allows it and it is possible.

    Parameters
    ----------
    model, loss, optimizer, loaders, clustering, device
        As for :class:`OptimizerSteps`.
    cuda_graphs
        "auto": record if nothing prevents it (:func:`why_not_recorded`). True: even models with layers of other
        packages. False: never.
    """
    arguments: dict[str, Any] = {"clustering": clustering, "device": device}
    if cuda_graphs is False or (cuda_graphs == "auto" and device.type != "cuda"):
        return OptimizerSteps(model, loss, optimizer, loaders, **arguments)
    reason = why_not_recorded(model, loaders, device, any_layers=cuda_graphs is True)
    if reason is not None:
        logger.warning("steps are launched kernel by kernel, not as CUDA graphs: %s", reason)
        return OptimizerSteps(model, loss, optimizer, loaders, **arguments)
    return RecordedSteps(model, loss, optimizer, loaders, **arguments, recorder=CudaRecorder(device))


def why_not_recorded(
    model: nn.Module, loaders: Mapping[str, Any], device: torch.device, *, any_layers: bool
) -> str | None:
    """Return why the steps of a training cannot be recorded, or None if they may.

    Parameters
    ----------
    model, loaders, device
        As for :class:`OptimizerSteps`.
    any_layers
        Whether layers of unknown packages count as ones that can be recorded.
    """
    if device.type != "cuda":
        return f"CUDA graphs need a GPU, and the training runs on {device}"
    if not all(isinstance(loader, ResidentLoader) for loader in loaders.values()):
        return "the data are not on the device"
    if any_layers:
        return None
    for name, module in model.named_modules():
        if type(module).__module__.split(".")[0] not in KNOWN_PACKAGES:
            return (
                f"{name or 'the model'} is a {type(module).__name__} of {type(module).__module__}, which may do "
                "something in Python that a replay would not repeat; cuda_graphs: true records it nevertheless"
            )
    return None
