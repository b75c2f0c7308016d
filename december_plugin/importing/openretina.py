"""The optional extra ``[retina]``: openretina, imported only when it is used.

openretina 1.1 prints, shows progress bars and seeds Python's, NumPy's and torch's global random state while it loads a
recording. :func:`undisturbed` contains all of that.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import random
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from december_plugin.errors import MissingExtraError

logger = logging.getLogger(__name__)
INSTALL = 'pip install "december-plugin[retina]"'


def openretina_module(name: str) -> Any:
    """Import a module of openretina.

    Parameters
    ----------
    name
        Its name below ``openretina``, e.g. ``"data_io.hoefling_2024.responses"``.

    Raises
    ------
    SettingsError
        If openretina is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(f"openretina.{name}")
    except ModuleNotFoundError as error:
        if error.name == "openretina":
            raise MissingExtraError(
                f"the retina recordings and the Hoefling model need openretina, which is not installed. Install it: "
                f"{INSTALL}"
            ) from None
        raise _unusable(name, error) from error
    # A torchvision or torchaudio built for another torch raises the first error that it meets: RuntimeError (an
    # operator does not exist), AttributeError (a half-initialised module), OSError (a missing library).
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        raise _unusable(name, error) from error


def _unusable(name: str, error: Exception) -> MissingExtraError:
    return MissingExtraError(
        f"openretina.{name} cannot be imported ({type(error).__name__}: {error}). Its torchvision and torchaudio must "
        f"be the releases that belong to torch {torch.__version__}, and all three builds for CUDA or all for the CPU. "
        f"Install them together, in a separate environment: {INSTALL}"
    )


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Send what is printed to the log, and restore all global random states afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    printed = io.StringIO()
    try:
        with (
            torch.random.fork_rng(devices=[]),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if printed.getvalue():
            logger.debug("openretina: %s", printed.getvalue())
