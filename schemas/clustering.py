"""The table of clusterings: DECEMber's own, and post hoc methods with their settings."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import datajoint as dj
import numpy as np

from december_plugin.baselines import METHODS, cluster_readouts
from december_plugin.errors import SettingsError, did_you_mean
from december_plugin.settings import check_integer

DECEMBER = "december"
MAX_DESCRIPTION_LENGTH = 255
TRIAL_VECTORS = np.arange(8.0).reshape(4, 2)


def canonical_settings(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a post hoc method with every default written out and every value in one form.

    ``1`` and ``1.0`` are the same where the default is a float, and so are tuples and lists, and NumPy's and Python's
    numbers: equal settings must get equal hashes, in every process.

    Raises
    ------
    SettingsError
        For an unknown setting, or a value that is not a finite number, a string, a bool, None or a list of these.
    """
    defaults: Mapping[str, Any] = {} if method == DECEMBER else METHODS[method]
    for name in settings:
        if name not in defaults:
            allowed = did_you_mean(name, defaults) if defaults else "It has none: the trainer has them all."
            raise SettingsError(f"{method} has no setting {name!r}. {allowed}")
    merged = {**defaults, **settings}
    return {name: _canonical(name, merged[name], defaults[name]) for name in sorted(merged)}


def _canonical(name: str, value: Any, default: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, (list, tuple)):
        like = default if isinstance(default, (list, tuple)) and len(default) == len(value) else [None] * len(value)
        return [_canonical(name, entry, entry_default) for entry, entry_default in zip(value, like, strict=True)]
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise SettingsError(f"{name} is {value!r}; a setting is a number, a string, true, false, none or a list.")
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{name} is {value!r}; it must be finite.")
    return value


def clustering_hash(method: str, n_clusters: int, settings: Mapping[str, Any]) -> str:
    """Return the 32 characters that name a clustering, from its canonical settings.

    nnfabrik's ``make_hash`` gives ``1`` and ``"1"``, and ``[]``, ``{}`` and ``""``, the same hash; JSON tells them
    apart.
    """
    text = json.dumps([method, n_clusters, settings], sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.md5(text.encode("utf-8"), usedforsecurity=False).hexdigest()


def _row(method: str, n_clusters: int, settings: dict[str, Any], description: str) -> dict[str, Any]:
    return {
        "clustering_hash": clustering_hash(method, n_clusters, settings),
        "method": method,
        "n_clusters": n_clusters,
        "settings": settings,
        "description": description,
    }


class Clustering(dj.Lookup):
    """Ways to assign the neurons of a trained model to clusters.

    The entry ``december`` is always there: it reads the mixture that the trainer fitted, and has no settings of its
    own. The others are methods of :mod:`december_plugin.baselines`, fitted to the readout vectors afterwards.
    """

    definition = """
    # Ways to cluster the neurons of a trained model
    clustering_hash: char(32)             # hash of method, n_clusters and settings
    ---
    method: varchar(32)                   # december = trained with the model; gmm, kmeans, t_mixture = post hoc
    n_clusters: int unsigned              # number of clusters K; 0 = the trainer's (december)
    settings: longblob                    # settings of the method, defaults written out
    description='': varchar(255)          # short description
    clustering_ts=CURRENT_TIMESTAMP: timestamp  # time of registration (server's clock)
    """

    contents = [_row(DECEMBER, 0, {}, "the mixture that was trained with the model")]  # noqa: RUF012

    def add_entry(
        self,
        method: str,
        n_clusters: int | None = None,
        *,
        description: str = "",
        skip_duplicates: bool = False,
        **settings: Any,
    ) -> dict[str, str]:
        """Register a clustering and return its key; the same settings always have the same key.

        Parameters
        ----------
        method
            "december", or a name in :data:`december_plugin.baselines.METHODS`.
        n_clusters
            Number of clusters of a post hoc method. None for "december", where the trainer has it.
        description
            A few words for readers of the table; no part of the key.
        skip_duplicates
            Return the key of an entry that is there already, rather than raise.
        **settings
            Settings of the method; what is not given has the method's default.

        Raises
        ------
        SettingsError
            For an unknown method or setting, a value that is not allowed, or an entry that is there already.
        """
        if method not in (DECEMBER, *METHODS):
            raise SettingsError(f"there is no method {method!r}. {did_you_mean(str(method), (DECEMBER, *METHODS))}")
        if len(description) > MAX_DESCRIPTION_LENGTH:
            raise SettingsError(
                f"the description has {len(description)} characters; {MAX_DESCRIPTION_LENGTH} are allowed."
            )
        row = _row(method, _checked_count(method, n_clusters), canonical_settings(method, settings), description)
        if method != DECEMBER:
            # The method itself knows which values it takes.
            cluster_readouts(TRIAL_VECTORS, method=method, n_clusters=1, **row["settings"])
        key = {"clustering_hash": row["clustering_hash"]}
        if self & key:
            if not skip_duplicates:
                raise SettingsError(
                    f"this clustering is registered already, as clustering_hash {row['clustering_hash']!r}. Pass "
                    "skip_duplicates=True to get its key."
                )
            return key
        self.insert1(row, skip_duplicates=skip_duplicates)
        return key


def _checked_count(method: str, n_clusters: int | None) -> int:
    if method == DECEMBER:
        if n_clusters:
            raise SettingsError(
                f"n_clusters is {n_clusters!r}; leave it out for the method 'december', where the trainer has it."
            )
        return 0
    if n_clusters is None:
        raise SettingsError(f"the method {method!r} needs n_clusters, an integer of at least 1.")
    return check_integer("n_clusters", n_clusters, minimum=1)
