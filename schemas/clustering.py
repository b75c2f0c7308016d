"""The table of clusterings: DECEMber's own, and post hoc methods with their settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import datajoint as dj

from december_plugin.clustering.settings import DECEMBER, canonical_settings, setting_mistakes
from december_plugin.errors import SettingsError, did_you_mean
from december_plugin.text.stored_text import checked_text
from december_plugin.validation.checks import check_integer

MAX_DESCRIPTION_LENGTH = 255


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
    own. The others are methods of :mod:`december_plugin.clustering.post_hoc`, fitted to the readout vectors afterwards.
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
            "december", or a name in :data:`december_plugin.clustering.method_settings.METHODS`.
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
        from december_plugin.clustering.method_settings import METHODS

        if method not in (DECEMBER, *METHODS):
            raise SettingsError(f"there is no method {method!r}. {did_you_mean(str(method), (DECEMBER, *METHODS))}")
        checked_text("the description", description, MAX_DESCRIPTION_LENGTH)
        row = _row(method, _checked_count(method, n_clusters), canonical_settings(method, settings), description)
        for _, mistake in setting_mistakes(method, settings):
            raise mistake
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
