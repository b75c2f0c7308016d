"""The state of an interrupted training as bytes, and whether such bytes belong to a training.

A snapshot holds everything the next epoch depends on, so that a resumed training ends with the same bytes, on the CPU,
as one that was never interrupted. It is loaded only if its checksum is right and its fingerprint is the training's own.
"""

from __future__ import annotations

import io
import logging
import platform
from collections.abc import Mapping
from typing import Any

import torch

from december_plugin.importing.versions import installed_version
from december_plugin.storage.atomic import DamagedError, verify_checksum, with_checksum
from december_plugin.training.fingerprint import content_digest, data_digest
from december_plugin.training.random_state import loader_generators
from december_plugin.training.settings import WITHOUT_EFFECT, ClusteringSettings, TrainingSettings, distinguishing

logger = logging.getLogger(__name__)

# Raise this number when a state has other entries, or when the training loop continues from one in another way.
FORMAT = 2
TIERS = ("train", "validation")
_MAGIC = b"december-training-1\n"
_PACKAGES = ("december-plugin", "neuralpredictors", "torch")


def training_fingerprint(
    *,
    model_digests: list[str],
    dataloaders: Mapping[str, Mapping[str, Any]],
    seed: int,
    settings: TrainingSettings,
    clustering: ClusteringSettings | None,
    device: torch.device,
) -> dict[str, str]:
    """Return what a training's result depends on, by name: digests, or the value itself if it is short.

    Parameters
    ----------
    model_digests
        Structure and content of the model before the training.
    dataloaders
        Tier to data key to loader. Datasets with a ``fingerprint()`` count by their content, others by their size,
        order and unit ids: reading them all would cost as much as an epoch.
    seed, settings, clustering, device
        The training's.
    """
    described = {name: value for name, value in distinguishing(settings).items() if name not in WITHOUT_EFFECT}
    described |= {"clustering": None if clustering is None else distinguishing(clustering)}
    return {
        "model": " ".join(model_digests),
        "data": f"{data_digest(dataloaders, TIERS, read=False)} {len(loader_generators(dataloaders))} generators",
        "settings": content_digest(described),
        "seed": str(seed),
        "software": ", ".join(f"{name} {installed_version(name)}" for name in _PACKAGES),
        # Another kind of device rounds differently.
        "device": f"{device.type} {platform.machine()}",
    }


def pack(state: Mapping[str, Any], fingerprint: Mapping[str, str]) -> bytes:
    """Return a state as bytes with a checksum, for :func:`unpack`.

    Parameters
    ----------
    state
        Tensors, numbers, strings and containers of them: what ``torch.load(weights_only=True)`` reads.
    fingerprint
        See :func:`training_fingerprint`.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "fingerprint": dict(fingerprint), "state": dict(state)}, buffer)
    return with_checksum(_MAGIC, buffer.getvalue())


def unpack(content: bytes, fingerprint: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the state that :func:`pack` packed, with tensors on the CPU; None, and a warning, if it is not usable.

    Parameters
    ----------
    content
        Bytes from anywhere: they are checked before anything is read from them.
    fingerprint
        That of the training which should continue.
    """
    try:
        entry = torch.load(io.BytesIO(verify_checksum(_MAGIC, content)), weights_only=True, map_location="cpu")
    except DamagedError as error:
        return _refused(f"is damaged ({error})")
    # Whatever goes wrong: these bytes are not a state, and the training can start without.
    except Exception as error:
        return _refused(f"cannot be read ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})")
    if not isinstance(entry, dict) or entry.get("format") != FORMAT:
        found = entry.get("format") if isinstance(entry, dict) else None
        return _refused(f"has the format {found!r}, but this release reads {FORMAT}")
    stored = entry["fingerprint"]
    different = [name for name in sorted({*stored, *fingerprint}) if stored.get(name) != fingerprint.get(name)]
    if different:
        return _refused(f"belongs to another training (different: {', '.join(different)})")
    return entry["state"]


def _refused(reason: str) -> dict[str, Any] | None:
    logger.warning("the state of the interrupted training %s; it is not used, and the training starts over", reason)
    return None
