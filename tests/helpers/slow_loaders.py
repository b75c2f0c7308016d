"""Loaders that take their time, so that a test can act in the middle of a short training."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from december_plugin.datasets import static_loaders
from december_plugin.validation.checks import checked_settings

PAUSE = 0.02  # before every batch, s


@checked_settings
def slow_loaders(*, paths: list[str], batch_size: int, seed: int | None = None) -> Any:
    """Return loaders of recordings of SENSORIUM 2022's layout."""
    loaders = static_loaders(paths=paths, batch_size=batch_size)
    for loader in loaders["train"].values():
        loader.collate_fn = _slowly(loader.collate_fn)
    return loaders


def _slowly(collate: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def collate_slowly(trials: Any) -> Any:
        time.sleep(PAUSE)
        return collate(trials)

    return collate_slowly
