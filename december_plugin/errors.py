"""Errors that are meant for the user (what was wrong, what is allowed, what to do), and exit codes of processes.

Each is also the built-in type that a caller would expect, so ``except ValueError`` still works. The command line prints
any :class:`DecemberError` as one message without a traceback.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable


class ExitCode(enum.IntEnum):
    """What the exit code of a process of december means.

    A command may define further codes; its ``--help`` lists them. A process that a signal ended has 128 and the
    signal's number.
    """

    DONE = 0
    ERROR = 1  # one that the message explains: any DecemberError
    USAGE = 2  # an unknown command or option, or a wrong value
    SOME_FAILED = 3  # of the jobs
    BUG = 70  # in december; the message names the file with the traceback (EX_SOFTWARE of sysexits.h)
    DEVICE_BROKEN = 75  # the GPU failed; start again (EX_TEMPFAIL)
    MPS_LOST = 76  # NVIDIA's MPS, through which the GPU was used, has ended; start again (EX_PROTOCOL)
    INTERRUPTED = 130  # by Ctrl-C
    BROKEN_PIPE = 141  # the reader of the output ended first (`december ... | head`)


class DecemberError(Exception):
    """Base of every error that this package raises on purpose."""


class SettingsError(DecemberError, ValueError):
    """A setting is unknown, misspelled, or has a value that is not allowed.

    Parameters
    ----------
    message
        What was given, what is allowed, what to do.
    setting
        Name of the setting to correct; None if the mistake is not about a setting, or about none in particular.
    others
        Names of further settings without which the value would be allowed.

    Attributes
    ----------
    setting, others
        As given.
    """

    def __init__(self, message: str = "", *, setting: str | None = None, others: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.setting = setting
        self.others = tuple(others)


class UnknownSettingError(SettingsError):
    """There is no setting of this name."""


class MissingSettingError(SettingsError):
    """A setting that has no default is not given."""


class MisfitError(SettingsError):
    """A setting that is allowed does not fit the data: a session, its recording, or its readout vectors."""


class MissingExtraError(SettingsError):
    """A setting or function needs an optional package that cannot be imported here."""


class RecordingError(DecemberError, ValueError):
    """A recording on disk is missing, incomplete or inconsistent."""


class EmbeddingError(DecemberError, ValueError):
    """Readout vectors cannot be found in a model, or cannot be clustered."""


class StimulusError(DecemberError, ValueError):
    """Stimuli cannot be found for a neuron, or shown to a model."""


class NoClustersError(EmbeddingError):
    """A method that finds the number of clusters finds none in the vectors."""


class AlignmentError(EmbeddingError):
    """Readout vectors could not be turned to a common orientation in the way that was asked for."""


class TrainingDivergedError(DecemberError, RuntimeError):
    """The loss or the score became NaN or infinite."""


class ServerError(DecemberError, RuntimeError):
    """The database server or the store cannot be used."""


class ServerUnreachableError(ServerError):
    """The database server does not answer; it may come back."""


class OutdatedSchemaError(ServerError):
    """The tables were made by an earlier version and must be migrated before they can be used."""


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return the end of an error message: a suggestion, if one is close, and what is allowed.

    Parameters
    ----------
    name
        What the user wrote.
    allowed
        The names that exist.
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    suggestion = f"Did you mean {close[0]!r}? " if close else ""
    return f"{suggestion}Allowed: {', '.join(names)}."
