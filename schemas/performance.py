"""How well the models predict held-out responses."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

import datajoint as dj
import numpy as np

from december_plugin.errors import RecordingError, SettingsError
from december_plugin.performance import (
    constant_neurons,
    correlation_to_average,
    single_trial_correlation,
)
from december_plugin.predictions import TierPredictions, predict_sessions, repeated_clips, stimulus_ids_of
from december_plugin.schemas.neuron_ids import session_neurons
from december_plugin.schemas.plain_values import packed, unpacked
from december_plugin.schemas.stored_models import build_parts, full_config, stored_state_dict

logger = logging.getLogger(__name__)

TIER = "test"


class TestPerformance(dj.Computed):
    """Correlation of predicted and measured responses on the test tier, per neuron and on average.

    Of movies the correlations are over all predicted frames of all clips; the correlation to the average is over the
    frames of the movies, after averaging the repeats of each.
    """

    __test__ = False  # not a test class for pytest

    trained_model_table: ClassVar[Any]
    nnfabrik: ClassVar[Any]

    definition = """
    # Predictive performance on the test tier
    -> TrainedModel
    ---
    single_trial_correlation: double     # mean over neurons of the correlation over single trials (-1 to 1)
    correlation_to_average=null: double  # mean over neurons of the correlation over repeated images (-1 to 1)
    n_tested_neurons: int unsigned       # number of neurons, all sessions together
    n_constant_neurons: int unsigned     # number of neurons with constant response or prediction; they count as 0
    """

    class Session(dj.Part):
        """The neurons of one session, in the order of the model's readout."""

        definition = """
        # Predictive performance per neuron of one session
        -> master
        data_key: varchar(128)              # session, as the data loaders name it
        ---
        tested_unit_ids: longblob           # unit ids (n,) int64
        tested_unit_ids_from: enum('recording', 'position')  # position = no unit ids, neurons are counted from 0
        single_trial_correlations: longblob  # correlation over single trials (n,) float32 (-1 to 1)
        correlations_to_average=null: longblob  # correlation over images, repeats averaged (n,) float32 (-1 to 1)
        n_trials: int unsigned              # number of trials of the tier
        """

    def make_fetch(self, key: dict[str, Any]) -> tuple[str]:
        """Return, packed, the configurations and what the trainer said about the neurons."""
        output = (self.trained_model_table & key).fetch1("output")
        neurons = output.get("neurons") if isinstance(output, Mapping) else None
        return (packed({"config": full_config(self.nnfabrik, key, trainer=False), "neurons": neurons}),)

    def make_compute(self, key: dict[str, Any], fetched: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Predict the test tier; return the entry's values and those of its sessions."""
        import torch

        inputs = unpacked(fetched)
        state_dict = stored_state_dict(self.trained_model_table, key)
        loaders, model = build_parts(inputs["config"], key, state_dict=state_dict)
        if not loaders.get(TIER):
            raise RecordingError(
                f"the data set has no tier {TIER!r}, only {', '.join(map(repr, loaders))}; a model is tested on trials "
                "that it never saw."
            )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        predicted = predict_sessions(model, loaders[TIER], device=device)
        scores = [
            _session_scores(data_key, session, loaders[TIER][data_key]) for data_key, session in predicted.items()
        ]
        data_keys = np.repeat(list(predicted), [len(score["single_trial_correlations"]) for score in scores])
        for score, session in zip(scores, session_neurons(data_keys, inputs["neurons"], lambda: loaders), strict=True):
            score |= {"tested_unit_ids": session.unit_ids, "tested_unit_ids_from": session.unit_ids_from}
        rows = _summary(scores), [_as_row(score) for score in scores]
        return rows

    def make_insert(self, key: dict[str, Any], row: dict[str, Any], sessions: list[dict[str, Any]]) -> None:
        """Insert the entry and its sessions."""
        self.insert1({**key, **row})
        self.Session.insert({**key, **session} for session in sessions)


def _session_scores(data_key: str, session: TierPredictions, loader: Any) -> dict[str, Any]:
    responses, predictions, n_trials = session.responses, session.predictions, session.n_trials
    stimulus_ids = _known_stimulus_ids(session, loader)
    repeats = repeated_clips(session, loader)
    if repeats is not None:
        # The tier serves means over repeats, but a correlation over single trials needs the trials.
        responses, predictions, stimulus_ids = repeats
        n_trials *= len(responses) // len(session.responses)
    if not (np.isfinite(responses).all() and np.isfinite(predictions).all()):
        what = "responses" if not np.isfinite(responses).all() else "predictions"
        raise RecordingError(f"session {data_key!r} has {what} on the tier {TIER!r} that are NaN or infinite.")
    to_average = None
    if stimulus_ids is not None and 1 < len(np.unique(stimulus_ids)) < len(stimulus_ids):
        to_average = correlation_to_average(responses, predictions, stimulus_ids)
    return {
        "data_key": data_key,
        "single_trial_correlations": single_trial_correlation(responses, predictions),
        "correlations_to_average": to_average,
        "n_trials": n_trials,
        "n_constant": int(constant_neurons(responses, predictions).sum()),
    }


def _known_stimulus_ids(session: TierPredictions, loader: Any) -> np.ndarray | None:
    try:
        return stimulus_ids_of(loader, session.frames)
    except SettingsError as error:
        logger.warning("there is no correlation to the average: %s", error)
        return None


def _summary(scores: list[dict[str, Any]]) -> dict[str, Any]:
    single = np.concatenate([score["single_trial_correlations"] for score in scores])
    averages = [score["correlations_to_average"] for score in scores if score["correlations_to_average"] is not None]
    return {
        "single_trial_correlation": float(single.mean()),
        "correlation_to_average": float(np.concatenate(averages).mean()) if averages else None,
        "n_tested_neurons": len(single),
        "n_constant_neurons": sum(score["n_constant"] for score in scores),
    }


def _as_row(score: dict[str, Any]) -> dict[str, Any]:
    row = {name: value for name, value in score.items() if name != "n_constant"}
    for name in ("single_trial_correlations", "correlations_to_average"):
        row[name] = None if row[name] is None else row[name].astype(np.float32)
    return row
