"""How well the trained models predict, one row for each trainer's models: clusterings do not change a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from december_plugin.evaluation.performance import UNTESTED
from december_plugin.schemas.declare import DecemberTables

if TYPE_CHECKING:
    import pandas as pd

    from december_plugin.evaluation.methods import Method

# Scores of TestPerformance, means over neurons, by their names in the tables of this module.
SCORES = {
    "test_correlation": "single_trial_correlation",
    "correlation_to_average": "correlation_to_average",
    "normalized_correlation": "normalized_correlation",
    "feve": "feve",
}
CEILINGS = ("single_trial_ceiling", "average_ceiling")
COUNTS = (
    *("n_tested_neurons", "n_constant_neurons", "n_repeated_neurons", "n_explainable_neurons"),
    *("n_tested_sessions", "n_untested_sessions"),
)
DATA_AND_MODEL = ("dataset_fn", "dataset_hash", "model_fn", "model_hash")
TRAINER = ("trainer_fn", "trainer_hash")
SESSION_SCORES = {
    "test_correlation": "single_trial_correlations",
    "correlation_to_average": "correlations_to_average",
    "average_ceiling": "ceilings_to_average",
    "normalized_correlation": "normalized_correlations",
    "feve": "feves",
}


def performance_table(tables: DecemberTables, restriction: Any = True) -> pd.DataFrame:
    """Return how well the models of every trainer predict the test tier.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Which trained models to take.

    Returns
    -------
    pandas.DataFrame
        One row per dataset, model and trainer of which a model is tested. ``n_models``; mean and sd (divisor n - 1)
        over models of means over neurons: ``test_correlation_*`` (over single trials), ``correlation_to_average_*``
        (over images, after averaging repeats), ``normalized_correlation_*`` (that over its noise ceiling) and
        ``feve_*`` (explained fraction of the explainable variance); the noise ceilings ``single_trial_ceiling`` and
        ``average_ceiling``; and over how many neurons and sessions these are means: ``n_tested_neurons``
        (``n_constant_neurons`` of them, on average over models, count as 0), ``n_repeated_neurons`` (of sessions with
        repeats: ``correlation_to_average``, ceilings), ``n_explainable_neurons`` (explainable variance of at least
        0.15: ``normalized_correlation``, ``feve``), ``n_tested_sessions`` and ``n_untested_sessions``. NaN where
        nothing is known: no repeats, or tested by a release that did not count.

    See Also
    --------
    session_performance : The same by session.
    untested_sessions : The sessions that are left out.
    performance_frame : By what the trainer was told.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import performance_table
    >>> lab = open_lab(schema="retina")
    >>> table = performance_table(lab.tables)
    >>> table[["trainer_fn", "n_models", "test_correlation_mean"]].round(2)
                                      trainer_fn  n_models  test_correlation_mean
    0  december_plugin.trainers.baseline_trainer         3                   0.88
    1  december_plugin.trainers.december_trainer         3                   0.91
    """
    key = [*DATA_AND_MODEL, *TRAINER]
    found = stored_columns(tables.TestPerformance & restriction, [*key, "seed", *SCORES.values(), *CEILINGS, *COUNTS])
    numbers = [*SCORES.values(), *CEILINGS, *COUNTS]
    found[numbers] = found[numbers].astype(float)  # a column without a single value has no type
    groups = found.groupby(key, sort=True)
    frame = groups.size().rename("n_models").reset_index()
    for name, column in SCORES.items():
        frame[f"{name}_mean"], frame[f"{name}_sd"] = groups[column].mean().array, groups[column].std().array
    for name in (*CEILINGS, *COUNTS):
        frame[name] = groups[name].mean().array
    order = ["n_models", *(f"{name}_{part}" for name in SCORES for part in ("mean", "sd")), *CEILINGS, *COUNTS]
    return frame[[*key, *order]]


def with_model_labels(labelled: pd.DataFrame, performance: pd.DataFrame) -> pd.DataFrame:
    """Return ``performance_table`` with a ``label``: the methods that show the models of each trainer.

    Clusterings do not change a model, so methods that cluster the same models are named together, each in one space,
    preferably that of the readout vectors. Trainers of one name, such as DECEMber's for several K, follow each other,
    distinguished by their numbers of clusters.

    Parameters
    ----------
    labelled
        Rows of ``agreement_table`` of one dataset and model, with ``label`` and ``identity``.
    performance
        :func:`performance_table` of the same.
    """
    key = list(TRAINER)
    methods = _in_one_space(labelled).groupby(key, sort=False)
    names = methods["label"].agg(lambda labels: " / ".join(dict.fromkeys(labels)))
    counts = methods["n_clusters"].agg(lambda counts: ", ".join(str(count) for count in sorted(set(counts))))
    together = names.groupby(names, sort=False).ngroup().argsort(kind="stable")
    names = names.mask(names.duplicated(keep=False), names + ", K = " + counts).iloc[together]
    return names.reset_index().merge(performance, on=key)


def _in_one_space(labelled: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each trainer and method that are in the first of their spaces, those of all neurons first."""
    order = labelled["identity"].map(_order_of_space)
    first = order.groupby([labelled[name] for name in (*TRAINER, "method")]).transform("min")
    return labelled[order == first]


def _order_of_space(method: Method) -> float:
    order = 2 * method.space.is_functional + (method.space.normalize == "l2")
    least = method.neurons.minimum_test_correlation
    return float(order if least is None else order + 4 * (2 + least))  # correlations are above -2


def session_performance(tables: DecemberTables, restriction: Any = True) -> pd.DataFrame:
    """Return how well models predict each session of the test tier, means over neurons and then over models.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Which trained models to take, of one dataset.

    Returns
    -------
    pandas.DataFrame
        One row per session: ``data_key``, ``n_test_trials``, ``untested`` (why it was not tested, a sentence; "" if it
        was), ``test_correlation``, ``single_trial_ceiling``, ``correlation_to_average``, ``average_ceiling``,
        ``normalized_correlation`` and ``feve``, NaN where not available.

    See Also
    --------
    performance_table : By trainer, over all sessions.
    untested_sessions : The sessions that are left out, and why.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import session_performance
    >>> lab = open_lab(schema="retina")
    >>> session_performance(lab.tables)[["data_key", "n_test_trials", "test_correlation"]].round(2)
      data_key  n_test_trials  test_correlation
    0    first           20.0              0.90
    1   second           20.0              0.89
    """
    import numpy as np
    import pandas as pd

    names = ["data_key", "n_trials", "untested_because", "explainable_variances", *SESSION_SCORES.values()]
    rows = []
    for session in stored_columns(tables.TestPerformance.Session & restriction, names).to_dict("records"):
        row = {"data_key": session["data_key"], "n_test_trials": session["n_trials"], "untested": why(session)}
        row |= {name: _mean(session[column]) for name, column in SESSION_SCORES.items()}
        explainable = session["explainable_variances"]
        known = isinstance(explainable, np.ndarray)
        row["single_trial_ceiling"] = _mean(np.sqrt(np.maximum(explainable, 0)) if known else None)
        rows.append(row)
    scores = [*SESSION_SCORES, "single_trial_ceiling"]
    frame = pd.DataFrame(rows, columns=["data_key", "n_test_trials", "untested", *scores])
    frame[["n_test_trials", *scores]] = frame[["n_test_trials", *scores]].astype(float)
    means = {"n_test_trials": "mean", "untested": "first", **dict.fromkeys(scores, "mean")}
    return frame.groupby("data_key", as_index=False).agg(means)


def untested_sessions(tables: DecemberTables, restriction: Any = True) -> pd.DataFrame:
    """Return the sessions without scores on the test tier: they were not measured there, or not often enough.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Which trained models to take.

    Returns
    -------
    pandas.DataFrame
        ``dataset_fn``, ``dataset_hash``, ``data_key``, ``n_trials`` of the tier, and ``reason``, a sentence about the
        session. Sessions tested by a release that did not store the reason are not included.

    See Also
    --------
    performance_table : The means over the other sessions.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import untested_sessions
    >>> lab = open_lab(schema="cortex")
    >>> untested = untested_sessions(lab.tables)
    >>> untested[["data_key", "n_trials"]]
      data_key  n_trials
    0   second         1
    >>> print(untested["reason"][0])
    it has one trial, and a correlation needs two
    """
    names = ["dataset_fn", "dataset_hash", "data_key", "n_trials", "untested_because"]
    sessions = tables.TestPerformance.Session & restriction
    is_stored = "untested_because" in sessions.heading.names
    found = stored_columns(sessions & ("untested_because <> ''" if is_stored else "FALSE"), names)
    found = found.assign(reason=[why(session) for session in found.to_dict("records")])
    shown = ["dataset_fn", "dataset_hash", "data_key", "n_trials", "reason"]
    return found[shown].drop_duplicates().sort_values(["dataset_hash", "data_key"], ignore_index=True)


def why(session: dict[str, Any]) -> str:
    """Return why a row of ``TestPerformance.Session`` has no scores, a sentence; "" if it has."""
    code = session.get("untested_because")
    return UNTESTED.get(code, code) if isinstance(code, str) else ""


def stored_columns(query: Any, names: list[str]) -> pd.DataFrame:
    """Return columns of a query as a frame; those that a schema of an earlier release lacks are missing values."""
    import pandas as pd

    stored = [name for name in names if name in query.heading.names]
    return pd.DataFrame(query.fetch(*stored, as_dict=True), columns=stored).reindex(columns=names)


def _mean(values: Any) -> float:
    """Return the mean over the neurons that have a value, NaN if there is none."""
    import numpy as np

    known = np.asarray(values, dtype=np.float64) if isinstance(values, np.ndarray) else np.empty(0)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else float("nan")
