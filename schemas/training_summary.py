"""What the trainers said about each training, as plain columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import datajoint as dj
import numpy as np

ROLES = ("december", "baseline", "control", "other")
SCORE_NAME_LENGTH = 64


class TrainingSummary(dj.Computed):
    """The scalars of ``TrainedModel.output``, so that SQL can select trainings by them.

    Trainers of other packages store what they like in ``output``; their models have the role ``other``, and NULL where
    our trainers have a value.
    """

    trained_model_table: ClassVar[Any]

    definition = """
    # Scalars of a training, from the trainer's output
    -> TrainedModel
    ---
    trainer_role: enum('december', 'baseline', 'control', 'other')  # control = baseline ended with its pretraining
    k_trained=null: int unsigned         # number of clusters of the clustering loss
    strength=null: double                # factor of the clustering loss that was used (dimensionless)
    strength_setting='': varchar(32)     # the setting it came from: a number or auto
    gradient_ratio=null: double          # gradient norm, clustering loss over model loss, when clustering began
    locked_in=null: bool                 # whether that is so high that the loss only freezes the first partition
    pretrain_epochs=null: int unsigned   # number of epochs without clustering loss at the beginning
    n_epochs=null: int unsigned          # number of epochs of the whole training
    best_epoch=null: int unsigned        # epoch whose weights were kept, from 1
    stopped_by='': varchar(32)           # what ended the training
    score_name='': varchar(64)           # what the score is
    validation_correlation=null: double  # mean validation correlation of the kept epoch (-1 to 1)
    """

    def make(self, key: dict[str, Any]) -> None:
        """Read the scalars out of the trainer's output."""
        score, output = (self.trained_model_table & key).fetch1("score", "output")
        self.insert1({**key, **summary_of(output, float(score))})


def summary_of(output: Any, score: float) -> dict[str, Any]:
    """Return the columns of :class:`TrainingSummary` for a trainer's output.

    Parameters
    ----------
    output
        Anything; a mapping with ``"trainer"`` of "december" or "baseline" is one of ours.
    score
        The score stored beside it.
    """
    if not isinstance(output, Mapping) or output.get("trainer") not in ("december", "baseline"):
        return {"trainer_role": "other"}
    settings = output.get("settings") or {}
    clustering = output.get("clustering") or {}
    role = "control" if settings.get("stop_after_pretraining") else str(output["trainer"])
    score_name = str(output.get("score_name") or "")
    return {
        "trainer_role": role,
        "k_trained": _number(clustering.get("n_clusters")),
        "strength": _number(clustering.get("strength")),
        "strength_setting": _as_text(clustering.get("strength_setting"))[:32],
        "gradient_ratio": _number(clustering.get("gradient_ratio")),
        "locked_in": None if clustering.get("locked_in") is None else bool(clustering["locked_in"]),
        "pretrain_epochs": _pretrain_epochs(output, settings),
        "n_epochs": _number(output.get("n_epochs")),
        "best_epoch": _number(output.get("best_epoch")),
        "stopped_by": str(output.get("stopped_by") or "")[:32],
        "score_name": score_name[:SCORE_NAME_LENGTH],
        "validation_correlation": _kept_correlation(output, score, score_name),
    }


def _pretrain_epochs(output: Mapping[str, Any], settings: Mapping[str, Any]) -> int | None:
    phases = (output.get("curves") or {}).get("phase")
    if phases is not None:
        return int(np.count_nonzero(np.asarray(phases) == 0))
    return _number(settings.get("pretrain_epochs"))


def _kept_correlation(output: Mapping[str, Any], score: float, score_name: str) -> float | None:
    if score_name == "mean validation correlation":
        return score
    curves, best = output.get("curves") or {}, output.get("best_epoch")
    if best is None or "validation_correlation" not in curves or "epoch" not in curves:
        return None
    at = np.flatnonzero(np.asarray(curves["epoch"]) == best)
    return _number(np.asarray(curves["validation_correlation"])[at[0]]) if len(at) else None


def _number(value: Any) -> Any:
    """Return a number for a nullable column: None for what is no finite number."""
    if isinstance(value, (bool, str)) or value is None:
        return None
    value = value.item() if hasattr(value, "item") else value
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
