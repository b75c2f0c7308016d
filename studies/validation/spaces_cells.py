"""One cell of the study of spaces: trains one model on one draw of a recording, and keeps what clusterings need.

Kept are the state dicts at the end of the pretraining ("control") and of the training ("baseline"), and the test
correlations. Readout vectors and feature covariances follow from them without another training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from cells import prepared, unclustered
from design import BASELINE, CONTROL, Condition

ROLES = (CONTROL, BASELINE)


def model_path(folder: Path, condition: Condition, seed: int) -> Path:
    """Return where a cell's models are kept."""
    return folder / "models" / f"{condition.name}-seed{seed}.pt"


def train_cell(folder: Path, condition: Condition, seed: int) -> Path:
    """Train the two models of a cell, if they are not there yet."""
    target = model_path(folder, condition, seed)
    if target.exists():
        return target
    loaders, truth = prepared(folder, condition)
    kept: dict[str, Any] = {"truth": torch.from_numpy(truth)}
    for role in ROLES:
        scores, state = unclustered(condition, loaders, seed, role)
        kept[role] = {"state": dict(state), "test_correlation": scores["test_correlation"]}
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_suffix(".tmp")
    torch.save(kept, draft)
    draft.rename(target)
    return target
