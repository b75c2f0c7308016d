"""Reads state dicts from checkpoints without running code of the file."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from december_plugin.embeddings.readout_vectors import IN_STATE_DICT
from december_plugin.errors import EmbeddingError

PICKLED = (".pth", ".pt", ".ckpt", ".tar")
SAFETENSORS = ".safetensors"
SUFFIXES = (*PICKLED, SAFETENSORS)
# Where training programs keep the state dict in a checkpoint; the first is Lightning's.
HOLDERS = ("state_dict", "model_state_dict", "model_state", "model")
MOST_NAMED = 3
# The functions that restore NumPy's arrays and numbers, by the names that NumPy 1 and 2 store: settings stored with the
# weights need them, and none of them runs code from the file.
_MAKERS = {"_reconstruct": np.array(0).__reduce__()[0], "scalar": np.float64(0).__reduce__()[0]}
ARRAYS: list[Any] = [
    np.ndarray,
    np.dtype,
    *(type(np.dtype(code)) for code in "?bhilqBHILQefdUS"),
    *(
        (maker, f"{module}.multiarray.{name}")
        for name, maker in _MAKERS.items()
        for module in ("numpy.core", "numpy._core")
    ),
]


def read_checkpoint(path: str | Path, *, prefix: str | None = None) -> dict[str, Any]:
    """Return the state dict in a checkpoint.

    Parameters
    ----------
    path
        ``.pth``, ``.pt``, ``.tar`` or Lightning's ``.ckpt``, read with ``weights_only=True``, or ``.safetensors``. The
        state dict is the file's content, or what it has under ``state_dict``, ``model_state_dict``, ``model_state`` or
        ``model``.
    prefix
        The prefix of the model's entries in the file, e.g. ``"model."``, which is removed; other entries are left out.
        None: whatever precedes ``readout.`` (nothing, or the name under which a Lightning module or ``DataParallel``
        holds the model).

    Returns
    -------
    dict
        The model's entries, without the prefix, tensors on the CPU.

    Raises
    ------
    EmbeddingError
        If the file cannot be read, needs code to be loaded, has no state dict, no entry with the prefix, several
        models, or weights that are not finite.

    See Also
    --------
    read_readouts : Reads the readout vectors of a checkpoint.
    december_plugin.embeddings.readout_embeddings : Readout vectors of a state dict.

    Examples
    --------
    >>> import torch
    >>> from december_plugin.imports import read_checkpoint
    >>> state_dict = {"module.readout.1-1-1.features": torch.zeros(1, 4, 1, 10)}
    >>> torch.save({"epoch": 3, "state_dict": state_dict}, "seed1.pth")
    >>> list(read_checkpoint("seed1.pth"))
    ['readout.1-1-1.features']
    """
    path = Path(path)
    if not path.is_file():
        raise EmbeddingError(f"there is no checkpoint {path}.")
    content = _read_safetensors(path) if path.suffix == SAFETENSORS else _read_pickled(path)
    return checked_state_dict(_state_dict_in(content, path), str(path), prefix=prefix)


def checked_state_dict(state_dict: Mapping[str, Any], name: str, *, prefix: str | None = None) -> dict[str, Any]:
    """Return the entries of the model in a state dict, see :func:`read_checkpoint`.

    Parameters
    ----------
    state_dict
        The state dict.
    name
        Its name in messages.
    prefix
        As for :func:`read_checkpoint`.
    """
    state_dict = {key: value for key, value in state_dict.items() if isinstance(key, str)}  # others name no weights
    prefix = _prefix_of(state_dict, name) if prefix is None else prefix
    entries = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
    if not entries:
        raise EmbeddingError(f"{name} has no entry that begins with {prefix!r}; it has {_some(state_dict)}.")
    for key, value in entries.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not bool(torch.isfinite(value).all()):
            count = int((~torch.isfinite(value)).sum())
            raise EmbeddingError(
                f"{name} has {count} weights that are NaN or infinite, the first in {prefix + key!r}: the training "
                "diverged. Import a checkpoint from before that."
            )
    return entries


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise EmbeddingError(f"{path} cannot be read as safetensors: {error}. It may be incomplete.") from None


def _read_pickled(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(ARRAYS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise EmbeddingError(_why_refused(path, error)) from None
    except Exception as error:  # damaged bytes fail anywhere in torch's reader, with any error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise EmbeddingError(
            f"{path} cannot be read as a checkpoint of torch: {reason[:200]}. It may be incomplete, or another kind of "
            f"file; known are {', '.join(SUFFIXES)}."
        ) from None


def _why_refused(path: Path, error: pickle.UnpicklingError) -> str:
    """Return why a checkpoint is refused: the code that it would run, as far as torch can tell."""
    try:
        needed = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # not an archive of torch: only torch's own message is left
        needed = []
    if not needed:
        return (
            f"{path} cannot be read with weights_only=True: {' '.join(str(error).split())[:200]} It is not a "
            "checkpoint, or of a kind that needs code to be loaded, and code out of files is not run."
        )
    named = ", ".join(needed[:MOST_NAMED]) + (", ..." if len(needed) > MOST_NAMED else "")
    return (
        f"{path} needs code to be loaded ({named}), and code out of files is not run. Where that code is installed and "
        "trusted, load it once and save its tensors alone: torch.save(model.state_dict(), 'weights.pth')."
    )


def _state_dict_in(content: Any, path: Path) -> Mapping[str, Any]:
    if isinstance(content, Mapping):
        for holder in HOLDERS:
            held = content.get(holder)
            if isinstance(held, Mapping) and _has_tensors(held):
                return held
        if _has_tensors(content):
            return content
    found = f"the keys {_some(content)}" if isinstance(content, Mapping) else f"a {type(content).__name__}"
    raise EmbeddingError(
        f"{path} has no state dict, neither as its content nor under {', '.join(HOLDERS)}; it holds {found}."
    )


def _has_tensors(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) and isinstance(key, str) for key, value in content.items())


def _prefix_of(state_dict: Mapping[str, Any], name: str) -> str:
    matches = (IN_STATE_DICT.fullmatch(key) for key in state_dict)
    prefixes = sorted({match["prefix"] for match in matches if match})
    if not prefixes:
        raise EmbeddingError(
            f"{name} has no entries readout.<data key>.<name>; it has {_some(state_dict)}. Models are known by their "
            "readouts: export the readout vectors as an array where yours are called otherwise."
        )
    if len(prefixes) > 1:
        raise EmbeddingError(
            f"{name} has several models, with the prefixes {', '.join(map(repr, prefixes))}. Say which with prefix."
        )
    return prefixes[0]


def _some(content: Mapping[Any, Any]) -> str:
    named = ", ".join(map(str, list(content)[:MOST_NAMED])) or "nothing"
    return named + (", ..." if len(content) > MOST_NAMED else "")
