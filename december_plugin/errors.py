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

    A command may define further codes; its ``--help`` lists them. A process ended by a signal has 128 plus the
    signal's number.

    Examples
    --------
    >>> from december_plugin.errors import ExitCode
    >>> ExitCode(75).name  # the process ended with 75
    'DEVICE_BROKEN'
    >>> ExitCode.DONE == 0
    True
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
    """Base of every error that this package raises on purpose.

    Examples
    --------
    >>> from december_plugin.datasets import static_loaders
    >>> from december_plugin.errors import DecemberError
    >>> try:
    ...     loaders = static_loaders(["recordings/mouse 1"])
    ... except DecemberError as error:
    ...     print(error)
    static_loaders needs the setting 'batch_size'; it has no default.
    """


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

    Examples
    --------
    >>> from december_plugin.embeddings.space import EmbeddingSpace
    >>> from december_plugin.errors import SettingsError
    >>> try:
    ...     space = EmbeddingSpace(space="function")
    ... except SettingsError as error:
    ...     print(f"{error.setting}: {error}")
    space: space is 'function', which is unknown. Did you mean 'functional'? Allowed: functional, readout.
    """

    def __init__(self, message: str = "", *, setting: str | None = None, others: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.setting = setting
        self.others = tuple(others)


class UnknownSettingError(SettingsError):
    """There is no setting of this name.

    Examples
    --------
    >>> from december_plugin.datasets import static_loaders
    >>> static_loaders(["recordings/mouse 1"], bach_size=64)
    Traceback (most recent call last):
        ...
    december_plugin.errors.UnknownSettingError: static_loaders has no setting 'bach_size'. Did you mean ...
    """


class MissingSettingError(SettingsError):
    """A setting without a default is missing.

    Examples
    --------
    >>> from december_plugin.datasets import static_loaders
    >>> static_loaders(batch_size=64)
    Traceback (most recent call last):
        ...
    december_plugin.errors.MissingSettingError: static_loaders needs the setting 'paths'; it has no default.
    """


class MisfitError(SettingsError):
    """A setting that is allowed does not fit the data: a session, its recording, or its readout vectors.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.clustering import cluster_readouts
    >>> readouts = np.random.default_rng(0).normal(size=(40, 3))
    >>> cluster_readouts(readouts, method="kmeans", n_clusters=50)
    Traceback (most recent call last):
        ...
    december_plugin.errors.MisfitError: n_clusters is 50, but there are only 40 neurons. ...
    """


class MissingExtraError(SettingsError):
    """A setting or function needs an optional package that cannot be imported here.

    Examples
    --------
    >>> from december_plugin.errors import MissingExtraError
    >>> try:
    ...     import my_lab_readers
    ... except ImportError:
    ...     raise MissingExtraError("my_lab_readers is not installed: pip install my-lab-readers.") from None
    Traceback (most recent call last):
        ...
    december_plugin.errors.MissingExtraError: my_lab_readers is not installed: pip install my-lab-readers.
    """


class RecordingError(DecemberError, ValueError):
    """A recording on disk is missing, incomplete or inconsistent.

    Examples
    --------
    >>> from december_plugin.datasets import static_loaders
    >>> static_loaders(["recordings/mouse 1"], batch_size=64)
    Traceback (most recent call last):
        ...
    december_plugin.errors.RecordingError: The recording ...mouse 1 does not exist. ...
    """


class EmbeddingError(DecemberError, ValueError):
    """Readout vectors cannot be found in a model, or cannot be clustered.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.clustering import cluster_readouts
    >>> cluster_readouts(np.full((4, 3), np.nan), method="kmeans", n_clusters=2)
    Traceback (most recent call last):
        ...
    december_plugin.errors.EmbeddingError: 4 of 4 readout vectors hold NaN or infinite values, the first is row 0. ...
    """


class StimulusError(DecemberError, ValueError):
    """Stimuli cannot be found for a neuron, or shown to a model.

    Examples
    --------
    >>> from torch import nn
    >>> from december_plugin.insilico import maximally_exciting_images
    >>> maximally_exciting_images(nn.Linear(64, 1), {"mouse 1": [0]}, canvas=(1, 8, 8))
    Traceback (most recent call last):
        ...
    december_plugin.errors.StimulusError: Linear has no readout of session 'mouse 1'; ...
    """


class NoClustersError(EmbeddingError):
    """A method that finds the number of clusters finds none in the vectors.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.clustering import cluster_readouts
    >>> readouts = np.random.default_rng(0).normal(size=(40, 3))  # a continuum
    >>> cluster_readouts(readouts, method="hdbscan")
    Traceback (most recent call last):
        ...
    december_plugin.errors.NoClustersError: HDBSCAN finds no cluster of at least 25 among 40 neurons: ...
    """


class AlignmentError(EmbeddingError):
    """Readout vectors could not be turned to a common orientation in the requested way.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.rotation import RotationAlignment
    >>> readouts = np.random.default_rng(0).normal(size=(3, 4))
    >>> RotationAlignment(4, schedule="paper", beta=1e-6, n_restarts=1, random_state=0).fit(readouts)
    Traceback (most recent call last):
        ...
    december_plugin.errors.AlignmentError: none of 1 fits reached a temperature above 5, ...
    """


class TrainingDivergedError(DecemberError, RuntimeError):
    """The loss or the score became NaN or infinite.

    Examples
    --------
    >>> from december_plugin.datasets import static_loaders
    >>> from december_plugin.errors import TrainingDivergedError
    >>> from december_plugin.models import stacked_core_gaussian_readout
    >>> from december_plugin.simulate import write_recording
    >>> from december_plugin.training import baseline_trainer
    >>> folder = write_recording("mouse 1", n_neurons=3, n_train=8, n_validation=4, image_shape=(8, 8), feature_size=3)
    >>> loaders = static_loaders([str(folder)], batch_size=4)
    >>> model = stacked_core_gaussian_readout(loaders, seed=1, hidden_channels=2, layers=1, input_kern=3)
    >>> try:
    ...     baseline_trainer(model, loaders, seed=1, lr_init=1e20)
    ... except TrainingDivergedError as error:
    ...     print(error)
    the training diverged in epoch 1: ... Lower lr_init (now 1e+20), ...
    """


class ServerError(DecemberError, RuntimeError):
    """The database server or the store cannot be used.

    Examples
    --------
    >>> from december_plugin.errors import ServerError
    >>> from december_plugin.storage import open_store
    >>> try:
    ...     store = open_store("shared disk")  # not in dj.config["stores"]
    ... except ServerError as error:
    ...     print(error)
    The store 'shared disk' cannot be used: ... Correct dj.config['stores']['shared disk'], e.g. ...
    """


class ServerUnreachableError(ServerError):
    """The database server does not answer; it may come back.

    Examples
    --------
    >>> import datajoint as dj
    >>> from december_plugin.database import connect
    >>> from december_plugin.errors import ServerUnreachableError
    >>> server = {"database.host": "127.0.0.1", "database.port": 9, "database.user": "reader", "database.password": "-"}
    >>> try:
    ...     with dj.config(**server):
    ...         connect(needs_store=False)
    ... except ServerUnreachableError as error:
    ...     print(error)
    The database server 127.0.0.1:9 cannot be reached (Connection refused). ...
    """


class OutdatedSchemaError(ServerError):
    """The tables were made by an earlier version and must be migrated before they can be used.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.errors import OutdatedSchemaError
    >>> try:
    ...     lab = open_lab(schema="retina")
    ... except OutdatedSchemaError as error:
    ...     raise SystemExit(str(error))  # it names the command that migrates the tables
    >>> len(lab.tables.TrainedModel())  # they are up to date
    6
    """


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return the end of an error message: a suggestion, if one is close, and what is allowed.

    Parameters
    ----------
    name
        What the user wrote.
    allowed
        The names that exist.

    See Also
    --------
    UnknownSettingError : The error that names a misspelled setting.

    Examples
    --------
    >>> from december_plugin.errors import did_you_mean
    >>> did_you_mean("kmean", ["gmm", "kmeans"])
    "Did you mean 'kmeans'? Allowed: gmm, kmeans."
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    suggestion = f"Did you mean {close[0]!r}? " if close else ""
    return f"{suggestion}Allowed: {', '.join(names)}."
