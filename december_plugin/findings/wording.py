"""The words of a report for what it compares: the seeds of a sweep, in tables, or existing models."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Wording:
    """Words for what is compared, and remedies for what is missing.

    Attributes
    ----------
    one, many
        What the models of a configuration are called.
    trains
        Whether models could have been trained with the clustering loss, so that what it adds is a question.
    draw_surrogates, try_more_counts, compute_criteria, resample, widen_range, add_models, compare_models, give_types,
    draw_tsne, test_models
        What to do, in sentences.
    """

    one: str
    many: str
    trains: bool
    draw_surrogates: str
    try_more_counts: str
    compute_criteria: str
    resample: str
    widen_range: str
    add_models: str
    compare_models: str
    give_types: str
    draw_tsne: str
    test_models: str

    @property
    def between(self) -> str:
        """Name of the agreement: "Agreement between seeds"."""
        return f"Agreement between {self.many}"

    @property
    def pairs(self) -> str:
        """What it is a mean over: "pairs of seeds"."""
        return f"pairs of {self.many}"


SEEDS = Wording(
    one="seed",
    many="seeds",
    trains=True,
    draw_surrogates="Add `surrogates: [{n_draws: 100}]` to the sweep, `december register` it again, and let "
    "`december worker` draw them.",
    try_more_counts="Register at least three numbers of clusters for one method, and let `december worker` compute "
    "ClusterQuality.",
    compute_criteria="`december worker` computes ClusterQuality once there are assignments.",
    resample="Add `stability: [{n_draws: 20}]` to the sweep, `december register` it again, and let `december worker` "
    "compute it.",
    widen_range="Where the best is at the smallest or largest K that was tried, register a wider range.",
    add_models="Add seeds to the sweep, and register it again.",
    compare_models="At least two seeds are needed, and `december worker` to compare them.",
    give_types="`december types import LABELS.csv --name NAME` stores them; workers then compare the clusters with "
    "them.",
    draw_tsne="It was not asked for: run `december report` without --no-tsne.",
    test_models="`december worker` computes them (TestPerformance).",
)
"""Of the tables that workers fill."""

IMPORTED = replace(
    SEEDS,
    trains=False,
    draw_surrogates="Add `surrogates: [{n_draws: 100}]` to the import file, `december import` it again, and let "
    "`december worker` draw them.",
    try_more_counts="Add at least three numbers of clusters for one method to the import file, `december import` it "
    "again, and let `december worker` compute ClusterQuality.",
    resample="Add `stability: [{n_draws: 20}]` to the import file, `december import` it again, and let `december "
    "worker` compute it.",
    widen_range="Where the best is at the smallest or largest K that was tried, import a wider range of clusterings.",
    add_models="Add models from other seeds to the import file, and import it again.",
    test_models="In the import file, name the recording under `dataset`, or under `test_correlation` the column of the "
    "table of units that has them.",
)
"""Of tables with models that were trained elsewhere."""

MODELS = Wording(
    one="model",
    many="models",
    trains=False,
    draw_surrogates="Study them again with `null_draws=99` (on the command line `--null-draws 99`).",
    try_more_counts="Study at least three numbers of clusters, e.g. `n_clusters=range(3, 21)` (`--n-clusters 3-20`).",
    compute_criteria="Study at least three numbers of clusters, e.g. `n_clusters=range(3, 21)` (`--n-clusters 3-20`).",
    resample="`Study.stability` computes it.",
    widen_range="Where the best is at the smallest or largest K that was tried, study a wider range.",
    add_models="Add a second model of the same neurons, such as one trained from another seed.",
    compare_models="At least two models of the same neurons are needed.",
    give_types="Pass them as `types` (on the command line `--types LABELS.csv`).",
    draw_tsne="It was not asked for: study them again with `tsne=True` (on the command line without `--no-tsne`).",
    test_models="Pass them as `test_correlations`.",
)
"""Of models without a database."""
