"""What the rows of workers say."""

from __future__ import annotations

from typing import Any

import pytest

from december_plugin.pool.liveness import WorkerStatus

GIBIBYTE = 1 << 30


def worker(**more: Any) -> WorkerStatus:
    texts = dict.fromkeys(
        ("worker_id", "pool_id", "host", "slurm_job", "detail", "job_table", "job_hash", "version"), ""
    )
    numbers = dict.fromkeys(("pid", "heartbeat_age", "n_done", "n_failed", "busy_seconds"), 0)
    unknown = dict.fromkeys(("epoch", "n_epochs", "score", "seconds_left"))
    return WorkerStatus(**{**texts, **numbers, **unknown, "gpu": "0", "state": "idle", "lease": 60.0, **more})


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        ({}, ""),  # of an earlier version, or on the processor
        ({"gpu_name": "NVIDIA L4", "gpu_memory": 24 * GIBIBYTE}, "NVIDIA L4, 24 GiB"),
        (
            {"gpu_name": "NVIDIA A100 MIG 3g.20gb", "gpu_memory": 20 * GIBIBYTE, "gpu_workers": 2},
            "NVIDIA A100 MIG 3g.20gb, 20 GiB, one of 2 workers",
        ),
        ({"gpu_workers": 0}, ""),
    ],
)
def test_the_gpu_of_a_worker_in_words(gpu: dict[str, Any], words: str) -> None:
    assert worker(**gpu).gpu_description == words
