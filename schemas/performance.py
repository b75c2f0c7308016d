"""How well the models predict held-out responses."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import datajoint as dj
import numpy as np

from december_plugin.errors import RecordingError, SettingsError
from december_plugin.evaluation.performance import (
    UNTESTED,
    constant_neurons,
    correlation_to_average,
    explainable_variance,
    feve,
    has_repeats,
    noise_ceilings,
    normalized_correlation,
    single_trial_correlation,
    why_untested,
)
from december_plugin.evaluation.predictions import (
    TierPredictions,
    n_served_neurons,
    predict_sessions,
    repeated_clips,
    stimulus_ids_of,
)
from december_plugin.imports.stored_names import NEURONS as IMPORTED_NEURONS
from december_plugin.schemas.serialization import decode_blob, encode_blob
from december_plugin.schemas.stored_models import (
    build_trained,
    full_config,
    neurons_of,
    session_neurons,
    stored_state_dict,
)

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)

TIER = "test"
# Scores per neuron, one array per session, by what they require.
OF_REPEATS = (
    "correlations_to_average",
    "explainable_variances",
    "ceilings_to_average",
    "normalized_correlations",
    "feves",
)
PER_NEURON = ("single_trial_correlations", *OF_REPEATS)


class TestPerformance(dj.Computed):
    """How well a model predicts the test tier, per neuron and on average.

    A session that was not measured there, or has too few trials to be tested, enters no mean; its row says why. Scores
    that need repeats are means over the sessions in which at least two images were shown more than once. For movies,
    all scores are over the predicted frames of all clips, and a frame of a movie counts as an image.
    """

    __test__ = False  # not a test class for pytest

    trained_model_table: ClassVar[Any]
    nnfabrik: ClassVar[Any]

    definition = """
    # Predictive performance on the test tier
    -> TrainedModel
    ---
    single_trial_correlation: double     # mean over tested neurons of the correlation over single trials (-1 to 1)
    correlation_to_average=null: double  # mean over repeated neurons of the correlation over images, repeats averaged
    n_tested_neurons: int unsigned       # number of neurons of the tested sessions
    n_constant_neurons: int unsigned     # number of them with constant response or prediction; they count as 0
    n_tested_sessions=null: int unsigned    # number of sessions that were tested; null = tested before it was counted
    n_untested_sessions=null: int unsigned  # number of sessions that could not be tested, and enter no mean
    n_repeated_neurons=null: int unsigned   # number of tested neurons of sessions with repeats
    single_trial_ceiling=null: double    # mean over repeated neurons of the noise ceiling of single trials (0 to 1)
    average_ceiling=null: double         # mean over repeated neurons of the noise ceiling of the average (0 to 1)
    n_explainable_neurons=null: int unsigned  # number of them with an explainable variance of at least 0.15
    normalized_correlation=null: double  # mean over explainable neurons of correlation to average over its ceiling
    feve=null: double                    # mean over explainable neurons of the explained explainable variance
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
        single_trial_correlations: longblob  # correlation over single trials (n,) float32 (-1 to 1); NaN = untested
        correlations_to_average=null: longblob  # correlation over images, repeats averaged (n,) float32 (-1 to 1)
        n_trials: int unsigned              # number of trials of the tier
        untested_because='': varchar(32)    # why the session was not tested; empty = it was
        explainable_variances=null: longblob  # explainable fraction of the variance (n,) float32 (at most 1)
        ceilings_to_average=null: longblob  # noise ceiling of the correlation to the average (n,) float32 (0 to 1)
        normalized_correlations=null: longblob  # correlation to average over its ceiling (n,) float32; NaN = below 0.15
        feves=null: longblob                # explained part of the explainable variance (n,) float32; NaN = below 0.15
        """

    @property
    def key_source(self) -> Any:
        """All trained models except those imported without their recording, for which nothing can be predicted.

        If such an import knows how well its neurons are predicted, it has entered that itself.
        """
        return self.trained_model_table.proj() & f"dataset_fn <> '{IMPORTED_NEURONS}'"

    def make_fetch(self, key: dict[str, Any]) -> tuple[str]:
        """Return, packed, the configurations and what the trainer said about the neurons."""
        output = (self.trained_model_table & key).fetch1("output")
        config = full_config(self.nnfabrik, key, trainer=False)
        return (encode_blob({"config": config, "neurons": neurons_of(output)}),)

    def make_compute(self, key: dict[str, Any], fetched: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Predict the test tier; return the entry's values and those of its sessions."""
        inputs = decode_blob(fetched)
        state_dict = stored_state_dict(self.trained_model_table, key)
        loaders, model = build_trained(inputs["config"], key, state_dict=state_dict, neurons=inputs["neurons"])
        if not loaders.get(TIER):
            raise RecordingError(
                f"the dataset has no tier {TIER!r}, only {', '.join(map(repr, loaders))}; a model is tested on trials "
                "that it has never seen."
            )
        scores = [
            _session_scores(data_key, loader, loaders[TIER].get(data_key), model)
            for data_key, loader in _sessions(loaders).items()
        ]
        _check_tested(scores)
        data_keys = np.repeat(
            [score["data_key"] for score in scores], [len(score["single_trial_correlations"]) for score in scores]
        )
        for score, session in zip(scores, session_neurons(data_keys, inputs["neurons"], lambda: loaders), strict=True):
            score |= {"tested_unit_ids": session.unit_ids, "tested_unit_ids_from": session.unit_ids_from}
        return _summary(scores), [_as_row(score) for score in scores]

    def make_insert(self, key: dict[str, Any], row: dict[str, Any], sessions: list[dict[str, Any]]) -> None:
        """Insert the entry and its sessions."""
        # An older schema lacks some of the columns.
        columns, columns_of_session = set(self.heading.names), set(self.Session().heading.names)
        self.insert1({**key, **{name: value for name, value in row.items() if name in columns}})
        rows = [{**key, **session} for session in sessions]
        self.Session.insert({name: row[name] for name in row if name in columns_of_session} for row in rows)


def _sessions(loaders: Mapping[str, Any]) -> dict[str, Any]:
    """Return all sessions of the dataset, each with a loader of some tier, those of the test tier first."""
    tiers = [loaders[TIER], *(tier for tier in loaders.values() if isinstance(tier, Mapping))]
    sessions: dict[str, Any] = {}
    for tier in tiers:
        for data_key, loader in tier.items():
            sessions.setdefault(data_key, loader)
    return sessions


def _session_scores(data_key: str, any_loader: Any, loader: Any, model: nn.Module) -> dict[str, Any]:
    """Return the scores of a session, or why it has none.

    Parameters
    ----------
    data_key
        The session.
    any_loader, loader
        A loader of some tier, and that of the test tier, or None.
    model
        The trained model.
    """
    if loader is None or (hasattr(loader, "__len__") and len(loader) == 0):
        return _untested(data_key, "no trials", n_neurons=n_served_neurons(any_loader), n_trials=0)
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    session = predict_sessions(model, {data_key: loader}, device=device)[data_key]
    responses, predictions, n_trials = session.responses, session.predictions, session.n_trials
    stimulus_ids = _known_stimulus_ids(session, loader)
    repeats = repeated_clips(session, loader)
    if repeats is not None:
        # The tier serves means over repeats, but a correlation over single trials needs the trials.
        responses, predictions, stimulus_ids = repeats
        n_trials *= len(responses) // len(session.responses)
    if not np.isfinite(predictions).all():
        raise RecordingError(f"session {data_key!r} has predictions on the tier {TIER!r} that are NaN or infinite.")
    reason = why_untested(responses)
    if reason:
        return _untested(data_key, reason, n_neurons=responses.shape[1], n_trials=n_trials)
    return {
        "data_key": data_key,
        "untested_because": "",
        "n_trials": n_trials,
        "n_constant": int(constant_neurons(responses, predictions).sum()),
        "single_trial_correlations": single_trial_correlation(responses, predictions),
        **_scores_of_repeats(responses, predictions, stimulus_ids),
    }


def _scores_of_repeats(
    responses: np.ndarray, predictions: np.ndarray, stimulus_ids: np.ndarray | None
) -> dict[str, np.ndarray | None]:
    if stimulus_ids is None or not has_repeats(stimulus_ids):
        return {**dict.fromkeys(OF_REPEATS), "single_trial_ceilings": None}
    ceilings = noise_ceilings(responses, stimulus_ids)
    return {
        "correlations_to_average": correlation_to_average(responses, predictions, stimulus_ids),
        "explainable_variances": explainable_variance(responses, stimulus_ids),
        "single_trial_ceilings": ceilings.single_trial,
        "ceilings_to_average": ceilings.to_average,
        "normalized_correlations": normalized_correlation(responses, predictions, stimulus_ids),
        "feves": feve(responses, predictions, stimulus_ids),
    }


def _untested(data_key: str, reason: str, *, n_neurons: int, n_trials: int) -> dict[str, Any]:
    logger.warning(
        "session %r is left out of the test on the tier %r and of its means: %s. The other sessions are tested; to "
        "test this one, give it measured trials of that tier (meta/trials/tiers.npy in the recording)",
        *(data_key, TIER, UNTESTED[reason]),
    )
    return {
        "data_key": data_key,
        "untested_because": reason,
        "n_trials": n_trials,
        "n_constant": 0,
        "single_trial_correlations": np.full(n_neurons, np.nan),
        **dict.fromkeys(OF_REPEATS),
        "single_trial_ceilings": None,
    }


def _check_tested(scores: list[dict[str, Any]]) -> None:
    if all(score["untested_because"] for score in scores):
        why = "; ".join(f"session {score['data_key']!r}: {UNTESTED[score['untested_because']]}" for score in scores)
        raise RecordingError(
            f"no session of the dataset can be tested on the tier {TIER!r}: {why}. Give at least one session measured "
            f"trials of the tier {TIER!r}; clusters and their agreement need none."
        )


def _known_stimulus_ids(session: TierPredictions, loader: Any) -> np.ndarray | None:
    try:
        return stimulus_ids_of(loader, session.frames)
    except SettingsError as error:
        logger.warning("the correlation to the average cannot be computed: %s", error)
        return None


def _summary(scores: list[dict[str, Any]]) -> dict[str, Any]:
    tested = [score for score in scores if not score["untested_because"]]
    repeated = [score for score in tested if score["correlations_to_average"] is not None]
    feves = _joined(repeated, "feves")
    return {
        "single_trial_correlation": float(_joined(tested, "single_trial_correlations").mean()),
        "correlation_to_average": _mean(_joined(repeated, "correlations_to_average")),
        "n_tested_neurons": len(_joined(tested, "single_trial_correlations")),
        "n_constant_neurons": sum(score["n_constant"] for score in tested),
        "n_tested_sessions": len(tested),
        "n_untested_sessions": len(scores) - len(tested),
        "n_repeated_neurons": len(feves),
        "single_trial_ceiling": _mean(_joined(repeated, "single_trial_ceilings")),
        "average_ceiling": _mean(_joined(repeated, "ceilings_to_average")),
        "n_explainable_neurons": int(np.isfinite(feves).sum()),
        "normalized_correlation": _mean(_joined(repeated, "normalized_correlations")),
        "feve": _mean(feves),
    }


def _joined(scores: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.concatenate([score[name] for score in scores]) if scores else np.empty(0)


def _mean(values: np.ndarray) -> float | None:
    """Return the mean over the neurons that have a value; None if none has."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _as_row(score: dict[str, Any]) -> dict[str, Any]:
    row = {name: value for name, value in score.items() if name not in ("n_constant", "single_trial_ceilings")}
    for name in PER_NEURON:
        row[name] = None if row[name] is None else row[name].astype(np.float32)
    return row
