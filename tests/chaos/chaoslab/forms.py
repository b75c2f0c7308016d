"""The long form, with the numbers that are asked for, and the short form of the tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from chaoslab.figures import Figures
from chaoslab.laboratory import Laboratory
from chaoslab.scenarios import damage, database, kills, poisoned, stores, suspended, throughput

Scenario = Callable[[Laboratory], Figures]

LONG: dict[str, Scenario] = {
    "kills": partial(
        kills.kill_9,
        size=kills.Size(n_faults=100, n_seeds=10, epochs=40, pause=0.45, alone=2, pooled=2, lease=6.0),
    ),
    "interruptions": partial(
        kills.interruptions,
        size=kills.Size(n_faults=50, n_seeds=5, epochs=40, pause=0.45, alone=2, pooled=2, lease=6.0),
    ),
    "suspended": suspended.suspended,
    "database": partial(database.database_killed, n_kills=20, n_seeds=12),
    "unwritable": stores.store_unwritable,
    "disk_full": stores.disk_full,
    "s3": partial(stores.s3_unavailable, seconds=60.0),
    "trivial": partial(throughput.trivial_jobs, n_workers=8, n_jobs=1000, n_blocks=2),
    "poisoned": poisoned.poisoned_jobs,
    "damage": damage.damaged_files,
}

SHORT: dict[str, Scenario] = {
    "kills": partial(kills.kill_9, size=kills.Size(n_faults=3, n_seeds=1, epochs=24, pause=0.15, alone=1, pooled=1)),
    "interruptions": partial(
        kills.interruptions, size=kills.Size(n_faults=3, n_seeds=1, epochs=24, pause=0.15, alone=2, pooled=0)
    ),
    "suspended": partial(suspended.suspended, epochs=24),
    "unwritable": stores.store_unwritable,
    "disk_full": stores.disk_full,
    "s3": partial(stores.s3_unavailable, seconds=5.0, epochs=15),
    "poisoned": partial(poisoned.poisoned_jobs, n_jobs=5, attempts=2),
    "database": partial(database.database_killed, n_kills=2, n_seeds=2, n_workers=2, longest=2.0, epochs=20),
    "damage": damage.damaged_files,
    # So few jobs, beside other tests, tell nothing about the ratio: it is bounded loosely here.
    "trivial": partial(throughput.trivial_jobs, n_workers=2, n_jobs=60, n_blocks=1, seconds=0.01, limit=4.0),
}

# Most of the time processes start or wait, so scenarios run side by side in the tests.
TOGETHER = (
    ("kills", "interruptions", "suspended", "damage"),
    ("unwritable", "disk_full", "s3", "poisoned", "database"),
    ("trivial",),
)
NEED_A_SERVER_OF_THEIR_OWN = ("damage", "database")  # they kill it
