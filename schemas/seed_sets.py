"""What is computed over all seeds of a configuration, and follows when a seed is added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import datajoint as dj

from december_plugin.errors import SettingsError

MOST_SEEDS = 500
NEWEST_FIRST = "GROUP_CONCAT(seed ORDER BY assignment_ts DESC, seed DESC)"


class SeparatedInt(int):
    """An integer whose text begins with a comma.

    DataJoint names a reservation by the key's values in a row without separators, so that the seeds 1 and 123 would be
    the same job as 11 and 23.
    """

    def __str__(self) -> str:
        return f",{int(self)}"


class SeedCount(dj.Lookup):
    """Numbers of seeds, for the keys of what is computed over all seeds of a configuration."""

    definition = """
    # Numbers of seeds
    n_seeds: int unsigned      # number of model seeds of a configuration
    """

    contents = [{"n_seeds": count} for count in range(2, MOST_SEEDS + 1)]  # noqa: RUF012


class SeedSetTable:
    """Mixin of computed tables that have one entry for each set of seeds of a configuration.

    The set is named by the seed that was assigned last, the smallest seed and their number: assignments are only ever
    added after the others, or deleted, so this tells one set from another. (Of several that were assigned within one
    second, the largest seed counts as the last.) When a seed is added there is a new key, and the entry of the smaller
    set stays.
    """

    cluster_assignment_table: ClassVar[Any]

    def current_sets(self) -> Any:
        """Return the set of all seeds of every configuration that has at least two, as a query of keys."""
        assignments = self.cluster_assignment_table()
        configuration = [name for name in assignments.primary_key if name != "seed"]
        sets = dj.U(*configuration).aggr(
            assignments,
            n_seeds="count(*)",
            newest_seed=f"CAST(SUBSTRING_INDEX({NEWEST_FIRST}, ',', 1) AS SIGNED)",
            smallest_seed="MIN(seed)",
        )
        return dj.U(*configuration, "newest_seed", "smallest_seed", "n_seeds") & (
            sets & f"n_seeds BETWEEN 2 AND {MOST_SEEDS}"
        )

    def seeds_of(self, key: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the assignments of a set, by seed, as keys, and the digests of their labels.

        Raises
        ------
        SettingsError
            If assignments of the set were deleted.
        """
        assignments = self.cluster_assignment_table()
        configuration = {name: key[name] for name in assignments.primary_key if name != "seed"}
        rows = (assignments & configuration).fetch("seed", "labels_md5", "assignment_ts", as_dict=True)
        by_age = sorted((row["assignment_ts"], row["seed"], row["labels_md5"]) for row in rows)
        seeds = [seed for _, seed, _ in by_age]
        newest = seeds.index(key["newest_seed"]) if key["newest_seed"] in seeds else -1
        # Seeds that were assigned within the same second, after this set was found, stand just before the newest.
        chosen = [*by_age[:newest][: key["n_seeds"] - 1], by_age[newest]] if newest >= 0 else []
        if len(chosen) != key["n_seeds"] or min(seed for _, seed, _ in chosen) != key["smallest_seed"]:
            raise SettingsError(
                f"{len(chosen)} of the {key['n_seeds']} assignments that are to be compared are left: some were "
                "deleted. Populate again."
            )
        chosen.sort(key=lambda row: row[1])
        return [{**configuration, "seed": int(seed)} for _, seed, _ in chosen], [str(md5) for *_, md5 in chosen]

    def _job_key(self, key: dict[str, Any]) -> dict[str, Any]:
        return {**key, **{name: SeparatedInt(key[name]) for name in ("smallest_seed", "n_seeds")}}
