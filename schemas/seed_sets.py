"""Sets of seeds: keys of what is computed over all seeds of a configuration at once."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import datajoint as dj

from december_plugin.errors import SettingsError

MOST_SEEDS = 500
# Digest of a set: exclusive or of the digests of its members, in two halves, since SQL's integers have 64 bits. It does
# not depend on an order, and needs no text of all members, whose length servers limit.
MEMBER = "MD5(CONCAT(seed, ' ', labels_md5))"
HALF = "LPAD(LOWER(HEX(BIT_XOR(CAST(CONV(SUBSTRING({member}, {start}, 16), 16, 10) AS UNSIGNED)))), 16, '0')"
SET_DIGEST = f"CONCAT({HALF.format(member=MEMBER, start=1)}, {HALF.format(member=MEMBER, start=17)})"


class SeedCount(dj.Lookup):
    """Numbers of seeds, for the keys of what is computed over all seeds of a configuration."""

    definition = """
    # Numbers of seeds
    n_seeds: int unsigned      # number of model seeds of a configuration
    """

    contents = [{"n_seeds": count} for count in range(2, MOST_SEEDS + 1)]  # noqa: RUF012


class SeedSet(dj.Manual):
    """Digests of sets of seeds and of their labels, for the same keys; entered with the first result of a set."""

    definition = """
    # Sets of seeds with their labels
    seed_set: char(32)         # digest of all seeds of a configuration and of the labels that each has
    """


def set_digest(members: Mapping[int, str]) -> str:
    """Return the digest of a set, from the digest of every seed's labels; the same as the server's."""
    total = 0
    for seed, labels_md5 in members.items():
        total ^= int(hashlib.md5(f"{seed} {labels_md5}".encode(), usedforsecurity=False).hexdigest(), 16)
    return f"{total:032x}"


class SeedSetTable:
    """Mixin of computed tables that have one entry for each set of seeds of a configuration.

    The set is named by a digest of its seeds and their labels, which does not depend on the order of their
    computation. The key also contains its smallest and largest seed and their number. When a seed is added or deleted,
    or gets other labels, there is a new key; the entry of the earlier set stays, and is valid again if that set
    returns.
    """

    cluster_assignment_table: ClassVar[Any]
    seed_set_table: ClassVar[Any]

    def current_sets(self) -> Any:
        """Return the set of all seeds of every configuration that has at least two, as a query of keys."""
        assignments = self.cluster_assignment_table()
        configuration = [name for name in assignments.primary_key if name != "seed"]
        sets = dj.U(*configuration).aggr(
            assignments,
            n_seeds="count(*)",
            largest_seed="MAX(seed)",
            smallest_seed="MIN(seed)",
            seed_set=SET_DIGEST,
        )
        return dj.U(*configuration, "largest_seed", "smallest_seed", "n_seeds", "seed_set") & (
            sets & f"n_seeds BETWEEN 2 AND {MOST_SEEDS}"
        )

    def enter_set(self, key: Mapping[str, Any]) -> None:
        """Enter the set of a key, which the entry refers to."""
        row = {"seed_set": key["seed_set"]}
        if not self.seed_set_table & row:
            # Not skip_duplicates, for which a worker's account needs the right to update.
            with contextlib.suppress(dj.errors.DuplicateError):
                self.seed_set_table.insert1(row)

    def seeds_of(self, key: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the assignments of a set, by seed, as keys, and the digests of their labels.

        Raises
        ------
        SettingsError
            If assignments of the set were deleted, or have other labels now.
        """
        assignments = self.cluster_assignment_table()
        configuration = {name: key[name] for name in assignments.primary_key if name != "seed"}
        rows = (assignments & configuration).fetch(
            "seed", "labels_md5", as_dict=True, order_by=("assignment_ts", "seed")
        )
        members = [(int(row["seed"]), str(row["labels_md5"])) for row in rows]
        chosen = next((each for each in earlier_sets(members) if set_digest(dict(each)) == key["seed_set"]), None)
        if chosen is None:
            raise SettingsError(
                f"the {key['n_seeds']} assignments that are to be compared no longer exist: some were deleted, "
                "or computed again with another result. Populate again."
            )
        chosen = sorted(chosen)
        return [{**configuration, "seed": seed} for seed, _ in chosen], [md5 for _, md5 in chosen]


def earlier_sets(members: list[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Yield the sets that may have been complete a while ago: without the newest seed, or without any two.

    Parameters
    ----------
    members
        Seeds with the digests of their labels, by the time of their assignment.
    """
    yield members
    for n_kept in range(len(members) - 1, 0, -1):
        yield members[:n_kept]
    for n_left_out in (1, 2):  # several that were assigned within one second
        for left_out in itertools.combinations(members, n_left_out):
            yield [member for member in members if member not in left_out]
