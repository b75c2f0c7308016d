"""A core from the first layers of a network of torchvision that was trained on a task."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from december_plugin.errors import MisfitError, SettingsError, did_you_mean
from december_plugin.models.sessions import SessionShape

COLOURS = 3
PROBE_SIZE = 224  # pixels of the images that torchvision's networks are trained on
BEST = "DEFAULT"  # torchvision's name of its best weights
PREFIXES = ("module.", "model.")


class _FoundError(Exception):
    """Ends the forward pass of the network at the layer that is read."""


class TaskCore(nn.Module):
    """Features of one layer of a network of torchvision, normalised over the batch and rectified.

    Parameters
    ----------
    input_channels
        1, shown to the network as gray, or 3.
    network
        The network, with its weights.
    layer
        Dotted name of the module whose output is read.
    fine_tune
        Whether the network's weights are trained. If not, the network stays in evaluation mode.
    final_batch_norm, momentum, final_nonlinearity
        Whether the features are normalised, with which momentum, and rectified (``ReLU``).

    Raises
    ------
    SettingsError
        If the network has no such layer, or the images have 2 or more than 3 channels.
    """

    def __init__(
        self,
        input_channels: int,
        *,
        network: nn.Module,
        layer: str,
        fine_tune: bool,
        final_batch_norm: bool,
        momentum: float,
        final_nonlinearity: bool,
    ):
        super().__init__()
        if input_channels not in (1, COLOURS):
            raise MisfitError(
                f"the images have {input_channels} channels, but a network trained on a task takes 1 (gray) or 3 "
                "(colours). Load the images without behaviour as channels."
            )
        layers = dict(network.named_modules())
        if not isinstance(layer, str) or not layer or layer not in layers:
            raise SettingsError(
                f"layer is {layer!r}. {did_you_mean(str(layer), [name for name in layers if name])}", setting="layer"
            )
        self.network, self.layer, self.fine_tune = network, layer, fine_tune
        if not fine_tune:
            network.requires_grad_(False)
        self.eval()
        with torch.no_grad():
            features = self._features(torch.zeros(1, COLOURS, PROBE_SIZE, PROBE_SIZE))
        self.train()
        if features.ndim != 4:
            raise SettingsError(
                f"layer {layer!r} has an output of shape {tuple(features.shape)}; an attention readout needs a map "
                "(batch, channels, height, width). Choose a convolutional layer.",
                setting="layer",
            )
        self.outchannels = features.shape[1]
        self.norm = nn.BatchNorm2d(self.outchannels, momentum=momentum) if final_batch_norm else nn.Identity()
        self.nonlinearity = nn.ReLU() if final_nonlinearity else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (batch, channels', height', width') of images (batch, 1 or 3, height, width)."""
        if images.shape[1] == 1:
            images = images.expand(-1, COLOURS, -1, -1)
        with nullcontext() if self.fine_tune else torch.no_grad():
            features = self._features(images)
        return self.nonlinearity(self.norm(features))

    def _features(self, images: Tensor) -> Tensor:
        """Run the network as far as the layer."""
        found: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            found.append(output)
            raise _FoundError

        handle = self.network.get_submodule(self.layer).register_forward_hook(keep)
        try:
            self.network(images)
        except _FoundError:
            pass
        finally:
            handle.remove()
        return found[0].clone()  # the network may go on to write into it

    def train(self, mode: bool = True) -> TaskCore:
        """Set the mode, of the network too if it is trained."""
        super().train(mode)
        if not self.fine_tune:
            self.network.eval()
        return self

    def regularizer(self) -> Tensor:
        """Return 0: nothing of the network is penalised."""
        return torch.zeros((), device=next(self.network.parameters()).device)

    def check_sizes(self, sessions: Mapping[str, SessionShape]) -> None:
        """Raise a :class:`SettingsError` if a session's images are too small for the network."""
        for data_key, session in sessions.items():
            try:
                with torch.no_grad():
                    self.eval()(torch.zeros(1, *session.image_shape))
            except RuntimeError as error:
                height, width = session.image_shape[1:]
                raise MisfitError(
                    f"The images of session {data_key!r} have {height} x {width} pixels, too few for layer "
                    f"{self.layer!r} of the network ({error}). Use an earlier layer or a larger scale.",
                    setting="layer",
                ) from None
            finally:
                self.train()


def load_network(network: str, weights: str | None, weights_file: str | None) -> nn.Module:
    """Build a network of torchvision with its weights.

    Parameters
    ----------
    network
        Its name in ``torchvision.models``.
    weights
        torchvision's name of weights, which it downloads on first use; None: random weights. A file replaces
        "DEFAULT".
    weights_file
        A state dict, read with ``weights_only=True``, if any.

    Raises
    ------
    SettingsError
        If torchvision is missing, has no such network or weights, or the file does not fit.
    """
    if weights_file is not None:
        if weights not in (None, BEST):
            raise SettingsError(
                "weights and weights_file are both given; a network has one set of weights.",
                setting="weights",
                others=["weights_file"],
            )
        weights = None
    models = torchvision_models()
    known = models.list_models(module=models)
    if network not in known:
        raise SettingsError(f"network is {network!r}. {did_you_mean(str(network), known)}", setting="network")
    if weights is not None:
        names = [entry.name for entry in models.get_model_weights(network)]
        if weights not in (*names, BEST):
            raise SettingsError(
                f"weights is {weights!r}. {did_you_mean(str(weights), [*names, BEST])}", setting="weights"
            )
    built = models.get_model(network, weights=weights)
    if weights_file is not None:
        _load_weights(built, network, Path(weights_file).expanduser())
    return built


def torchvision_models() -> Any:
    """Return ``torchvision.models``, or raise a :class:`SettingsError` that says how to get it."""
    try:
        # Without torchvision, december_plugin.importing.shims provides a stand-in without its submodules.
        return importlib.import_module("torchvision.models")
    except ImportError:
        what = "which is not installed"
    # Built for another torch, it raises various errors: RuntimeError (an operator), OSError (a file).
    except Exception as error:
        what = f"which does not work with torch {torch.__version__} ({error})"
    raise SettingsError(
        f"a task-driven core needs torchvision, {what}. Install the torchvision release that belongs to your torch, or "
        "use stacked_core_attention_readout."
    )


def _load_weights(network: nn.Module, name: str, path: Path) -> None:
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise SettingsError(f"weights_file is {str(path)!r}, which does not exist.", setting="weights_file") from None
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise SettingsError(
            f"weights_file {str(path)!r} cannot be read as a state dict ({str(error).splitlines()[0]}). Store the "
            "network's state dict alone, with torch.save(network.state_dict(), path).",
            setting="weights_file",
        ) from None
    state = state.get("state_dict", state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SettingsError(
            f"weights_file {str(path)!r} does not contain a state dict: names and tensors are expected.",
            setting="weights_file",
        )
    renamed = {_without_prefixes(key): value for key, value in state.items()}
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in renamed]
    unfit = [key for key in wanted if key in renamed and renamed[key].shape != wanted[key].shape]
    if missing or unfit:
        what = f"has no entry {missing[0]!r}" if missing else f"has {unfit[0]!r} in another shape"
        raise SettingsError(
            f"weights_file {str(path)!r} does not fit the network {name!r}: it {what}.",
            setting="weights_file",
            others=["network"],
        )
    network.load_state_dict({key: renamed[key] for key in wanted})


def _without_prefixes(key: str) -> str:
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    return key
