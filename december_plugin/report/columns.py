"""What the files and columns of an export are."""

from __future__ import annotations

from december_plugin.clustering.methods import POST_HOC
from december_plugin.evaluation.model_selection import CRITERIA

FILES = {
    "agreement": "One row per configuration (dataset, model, trainer, clustering): agreement and test correlation.",
    "null": "Agreement between seeds beside surrogates without clusters, one row per configuration and surrogate.",
    "cluster_counts": "Criteria for the number of clusters, one row per configuration.",
    "cluster_count_choices": "Which number of clusters each criterion picks, one row per method, and in words.",
    "consensus": "How much the seeds share, one row per configuration whose consensus is computed.",
    "stability": "How well each model's clusters are found again in parts of its neurons, where workers computed it.",
    "cluster_confusion": "How similarly each model's clusters respond, one row per pair, where workers computed it.",
    "exciting_images": "Neurons with a maximally exciting image, one row each, where workers computed it.",
    "trainings": "One row per trained model.",
    "consensus_neurons": "The clusters that the seeds vote for, one row per configuration and neuron.",
    "assignments": "The clusters of every model, one row per configuration, seed and neuron.",
    "performance_neurons": "Correlations, ceilings and FEVE on the test tier, one row per trained model and neuron.",
}

_ONE = "1"  # dimensionless


def _mean_sd(name: str, unit: str, what: str, over: str) -> dict[str, tuple[str, str]]:
    return {
        f"{name}_mean": (unit, f"{what}, mean over {over}"),
        f"{name}_sd": (unit, f"{what}, standard deviation over {over} (divisor n - 1)"),
    }


def _picked(name: str, what: str) -> dict[str, tuple[str, str]]:
    return {
        name: ("clusters", f"K that {what} picks; empty: none"),
        f"{name}_low": ("clusters", f"smallest K that {what} cannot distinguish from its best"),
        f"{name}_high": ("clusters", f"largest K that {what} cannot distinguish from its best"),
        f"{name}_says": ("", "the same in words"),
    }


# Column to unit and meaning. "1" is dimensionless, "" is a text or a number that counts nothing.
COLUMNS: dict[str, tuple[str, str]] = {
    "configuration": ("", "number of the configuration, as in agreement"),
    "training": ("", "number of the trained model, as in trainings"),
    "label": ("", "method in words"),
    "method": (
        "",
        f"december (trained with the model), or fitted afterwards: {', '.join(POST_HOC)}",
    ),
    "n_clusters": ("clusters", "number of clusters K"),
    "trainer_role": ("", "december, baseline, control (a baseline that ended with its pretraining) or other"),
    "strength_setting": ("", "the setting that the strength came from: a number or auto"),
    "strength": (_ONE, "factor of the clustering loss that was used; in agreement the mean over models"),
    "gradient_ratio": (_ONE, "gradient norm of the clustering loss over that of the model loss when it began"),
    "locked_in": ("", "1 if that is so high that the loss only freezes the first partition"),
    "pretrain_epochs": ("epochs", "epochs without the clustering loss at the beginning"),
    "n_models": ("models", "number of models (seeds)"),
    "n_left_out": ("neurons", "number of neurons left out for their test correlation, mean over models"),
    **_mean_sd("agreement", _ONE, "adjusted Rand index between seeds", "pairs of seeds"),
    "n_pairs": ("pairs", "number of pairs of seeds"),
    **_mean_sd("types_agreement", _ONE, "adjusted Rand index with the known types", "models"),
    **_mean_sd("test_correlation", _ONE, "single-trial correlation on the test tier, mean over neurons", "models"),
    "trainer_comment": ("", "comment of the trainer's entry"),
    "dataset_fn": ("", "dataset function"),
    "dataset_hash": ("", "hash of its settings"),
    "model_fn": ("", "model function"),
    "model_hash": ("", "hash of its settings"),
    "trainer_fn": ("", "trainer function"),
    "trainer_hash": ("", "hash of its settings"),
    "clustering_hash": ("", "hash of the clustering's settings"),
    "surrogate_name": ("", "kind of surrogate"),
    "null_mean": (_ONE, "adjusted Rand index between seeds of surrogates, mean over draws"),
    "null_sd": (_ONE, "its standard deviation over draws (divisor n - 1)"),
    "null_low": (_ONE, "its 2.5 % quantile"),
    "null_high": (_ONE, "its 97.5 % quantile"),
    "p_value": (_ONE, "one-sided p value of the observed agreement"),
    "n_draws": ("draws", "number of draws of surrogates"),
    "valleys_mean": (_ONE, "valleys between clusters, mean over models"),
    "null_valleys_mean": (_ONE, "the same on surrogates, mean over draws"),
    "valleys_p_value": (_ONE, "one-sided p value of the valleys; empty: nobody looked for valleys"),
    "above_null_mean": (_ONE, "agreement between seeds minus the mean of its null"),
    "above_null_sd": (_ONE, "standard deviation of the null over draws (divisor n - 1)"),
    "trainer_settings": ("", "settings of the trainer but for the number of clusters"),
    "clustering_settings": ("", "settings of the clustering but for the number of clusters"),
    **_mean_sd("heldout_log_likelihood", "nat per neuron", "log likelihood of held-out neurons", "models"),
    "heldout_log_likelihood_se": ("nat per neuron", "its standard error over splits, mean over models"),
    **_mean_sd("bic", _ONE, "Bayesian information criterion (less is better)", "models"),
    **_mean_sd("silhouette", _ONE, "mean silhouette", "models"),
    "smallest": ("clusters", "smallest K that was tried"),
    "largest": ("clusters", "largest K that was tried"),
    "n_counts": ("", "how many numbers of clusters were tried"),
    **{name: said for criterion in CRITERIA for name, said in _picked(criterion.name, criterion.phrase).items()},
    "n_criteria": ("", "how many of the four exist for the method and are computed"),
    "n_picks": ("", "how many of these pick a K"),
    "count": ("clusters", "K that at least two criteria agree on; empty: none"),
    "count_low": ("clusters", "its uncertainty: smallest K that one of these cannot exclude"),
    "count_high": ("clusters", "its uncertainty: largest K that one of these cannot exclude"),
    "agreeing": ("", "which criteria agree"),
    "statement": ("", "the same in words"),
    "n_seeds": ("seeds", "number of seeds that voted"),
    "n_neurons": ("neurons", "number of neurons that all seeds have"),
    "n_clusters_found": ("clusters", "consensus clusters that hold at least one neuron"),
    "mean_stability": (_ONE, "stability, mean over neurons"),
    "core_fraction": (_ONE, "share of neurons that all seeds put into the same consensus cluster"),
    "seed": ("", "seed of the model"),
    "jaccard": (_ONE, "Jaccard similarity of clusters with those of parts of the neurons, mean weighted with neurons"),
    "n_stable_clusters": ("clusters", "clusters with a mean Jaccard similarity of at least 0.75"),
    "n_resampled_clusters": ("clusters", "clusters of this model that have neurons"),
    "n_resamplings": ("draws", "number of random parts of the neurons"),
    "resampled_share": (_ONE, "share of the neurons that a part has"),
    "confusion_responses": ("", "linear: before the output nonlinearity; images: as predicted for training stimuli"),
    "confusion_threshold": (_ONE, "mean correlation down to which clusters are merged into blocks"),
    "first": ("", "a cluster"),
    "second": ("", "another cluster of the same model"),
    "first_neurons": ("neurons", "number of neurons of the first"),
    "second_neurons": ("neurons", "number of neurons of the second"),
    "correlation": (_ONE, "between the responses of the means of both, best over orientations of an equivariant core"),
    "is_one_block": ("", "1 if both are in one block"),
    "mei_hash": ("", "settings of the images"),
    "mei_models": ("", "single: images of the model; seeds: of the mean over all models that differ in the seed alone"),
    "rank": ("", "place of the neuron in its cluster by test correlation, 0 = the best"),
    "response": ("", "response to the image, as the model predicts responses"),
    "ending": ("", "why the ascent ended: converged, max_steps, or dead (no image changes the response)"),
    "stability_null_mean": (_ONE, "jaccard of surrogates without clusters, mean over these; empty: none were drawn"),
    "stability_p_value": (_ONE, "its one-sided p value: surrogates that are at least as stable"),
    "n_resampled_surrogates": ("draws", "number of these surrogates"),
    "validation_correlation": (_ONE, "mean validation correlation of the kept epoch"),
    "test_correlation": (
        _ONE,
        "correlation of response and prediction over single trials of the test tier; in trainings the mean over "
        "neurons, in performance_neurons of one neuron, empty: session not tested",
    ),
    "correlation_to_average": (
        _ONE,
        "correlation over images after averaging repeats; in trainings the mean over the repeated neurons",
    ),
    "normalized_correlation": (
        _ONE,
        "correlation to the average over its noise ceiling; empty below an explainable variance of 0.15",
    ),
    "feve": (
        _ONE,
        "explained fraction of the explainable variance; empty below an explainable variance of 0.15",
    ),
    "explainable_variance": (_ONE, "fraction of the variance over trials that the image explains at best"),
    "single_trial_ceiling": (
        _ONE,
        "noise ceiling of the correlation over single trials, mean over the repeated neurons; of one neuron it is the "
        "root of its explainable_variance, 0 if that is negative",
    ),
    "average_ceiling": (
        _ONE,
        "noise ceiling of the correlation to the average; in trainings the mean over the repeated neurons",
    ),
    "n_tested_neurons": ("neurons", "neurons of the tested sessions, over which test_correlation is the mean"),
    "n_constant_neurons": ("neurons", "how many of them have a constant response or prediction; they count as 0"),
    "n_repeated_neurons": ("neurons", "how many of them are of sessions in which at least two images were repeated"),
    "n_explainable_neurons": ("neurons", "how many of these have an explainable variance of at least 0.15"),
    "n_tested_sessions": ("sessions", "sessions that were tested"),
    "n_untested_sessions": ("sessions", "sessions that were not: no measured responses, or fewer than two trials"),
    "n_epochs": ("epochs", "epochs of the whole training"),
    "best_epoch": ("", "epoch whose weights were kept, from 1"),
    "stopped_by": ("", "what ended the training"),
    "trained": ("", "when the model was stored (server's clock)"),
    "data_key": ("", "session"),
    "unit_id": ("", "id of the neuron in its session"),
    "cluster": (
        "",
        "cluster, from 0; in assignments the numbers of different seeds are not matched",
    ),
    "stability": (_ONE, "share of seeds that put the neuron into this cluster, 1 = all"),
    "confidence": (_ONE, "largest responsibility; in consensus_neurons the mean over seeds"),
    "margin": (_ONE, "largest minus second largest responsibility, mean over seeds; empty if not stored"),
}
