"""Methods and settings in words, with citations."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from december_plugin.clustering.methods import ALL_NEURONS, DECEMBER, METHODS, POST_HOC
from december_plugin.embeddings.space import READOUT_SPACE, EmbeddingSpace
from december_plugin.evaluation.model_selection import format_n_clusters
from december_plugin.findings.cluster_functions import FunctionalBlocks, PreferredImages
from december_plugin.findings.data import Analysis
from december_plugin.findings.verdict import agreed_counts
from december_plugin.findings.wording import Wording
from december_plugin.text.entry_names import complete_settings, short_function
from december_plugin.text.formatting import listed, numbered

READOUT_VECTORS = (
    "A readout vector is a neuron's weights on the features of its model's core, in a basis that training picks by "
    "chance."
)
FUNCTIONAL = (
    "A functional embedding is the readout vector times the symmetric root of the covariance of these features over "
    "stimuli: distances are differences of predicted drives, in their standard deviations, whatever the basis."
)
DIRECTIONS = "Directions are vectors of length 1: what a neuron is tuned to, and not how strongly it is driven."
CITATIONS = (
    (
        "december",
        "Nellen, N. S. et al. Learning to cluster neuronal function. NeurIPS 2025. arXiv:2506.03293. DECEMber: Deep "
        "Embedding Clustering via Expectation Maximization-based refinement. Code: github.com/Nisone2000/sensorium",
    ),
    (
        "sensorium",
        "Willeke, K. F. et al. The Sensorium competition on predicting large-scale mouse primary visual cortex "
        "activity. 2022. arXiv:2206.08666",
    ),
    (
        "adaptive",
        "Turishcheva, P., Burg, M., Sinz, F. H. and Ecker, A. Reproducibility of predictive networks for mouse visual "
        "cortex. NeurIPS 2024. arXiv:2406.12625",
    ),
    ("nnfabrik", "nnfabrik. github.com/sinzlab/nnfabrik"),
    ("neuralpredictors", "neuralpredictors. github.com/sinzlab/neuralpredictors"),
    (
        "datajoint",
        "Yatsenko, D. et al. DataJoint: managing big scientific data using MATLAB or Python. 2015. bioRxiv 031658",
    ),
    (
        "dec",
        "Xie, J., Girshick, R. and Farhadi, A. Unsupervised deep embedding for clustering analysis. ICML 2016. "
        "arXiv:1511.06335",
    ),
    ("ari", "Hubert, L. and Arabie, P. Comparing partitions. Journal of Classification 2, 193-218, 1985"),
    (
        "tsne",
        "Linderman, G. C. and Steinerberger, S. Clustering with t-SNE, provably. SIAM Journal on Mathematics of Data "
        "Science 1, 313-332, 2019",
    ),
    (
        "surrogates",
        "Schreiber, T. and Schmitz, A. Improved surrogate data for nonlinearity tests. Physical Review Letters 77, "
        "635-638, 1996",
    ),
    (
        "rotation",
        "Ustyuzhaninov, I. et al. Rotation-invariant clustering of neuronal responses in primary visual cortex. ICLR "
        "2020",
    ),
    (
        "inception",
        "Walker, E. Y. et al. Inception loops discover what excites neurons most using deep predictive models. Nature "
        "Neuroscience 22, 2060-2065, 2019",
    ),
)
SETTINGS = {
    "pretrain_epochs": "epochs of pretraining",
    "max_iter": "epochs at most (pretraining included)",
    "lr_init": "learning rate",
    "patience": "patience (epochs)",
    "lr_decay_steps": "decreases of the learning rate",
    "n_clusters": "number of clusters K",
    "dof": "degrees of freedom",
    "weights": "mixing weights",
    "detach_target": "target held constant:",
    "scale_bounds": "bounds of the scales",
    "kmeans_n_init": "restarts of k-means",
    "lr_decay": "decay of the learning rate at",
    "scale_loss_trials": "trials that scale the loss",
    "pretrain_early_stopping": "early stopping of the pretraining",
    "pretrain_lr_decay_steps": "decreases of the learning rate in the pretraining",
    "pretrain_lr_decay_factor": "factor of each of these decreases",
    "lr_after_pretraining": "learning rate after the pretraining",
    "fresh_optimizer": "a fresh optimizer after the pretraining",
    "best_epoch_from": "earliest epoch that can be the best",
    "precision": "precision of the convolutions",
    "kmeans_seeds": "seeds of the restarts",
    "mixture_n_init": "runs of EM of which the likeliest starts the clusters",
    "start_scales": "scales at the start",
    "scale_centers": "centres that the scales are about",
    "empty_clusters": "empty clusters",
    "space": "space",
    "normalize": "normalisation",
    "covariance_refresh": "the feature covariance is computed again",
    "restore_mixture": "mixture restored with the best epoch",
}
NUMBER = {name: number for number, (name, _) in enumerate(CITATIONS, 1)}


def cite(*names: str) -> str:
    """Return the numbers of citations, as [1, 2]."""
    return "[" + ", ".join(str(NUMBER[name]) for name in names) + "]"


def methods_in_words(analysis: Analysis, entries: pd.DataFrame) -> list[tuple[str, str]]:
    """Return headings with paragraphs on what was done, with the settings of the entries."""
    parts = [("Models", _models(analysis))]
    if analysis.wording.trains:
        parts.append(("Training", _training(analysis, entries)))
    if (analysis.agreement["method"] == "december").any():
        parts.append(("DECEMber", _december(analysis, entries)))
    parts.append(("Clusterings fitted afterwards", _post_hoc(analysis)))
    if len(analysis.alignments):
        parts.append(("Alignment", _alignment(analysis.alignments)))
    parts.append(("Agreement", _agreement(analysis.wording)))
    if not analysis.nulls.empty:
        parts.append(("The null", _null(analysis)))
    if not analysis.counts.empty:
        parts.append(("Number of clusters", _counts(analysis)))
    if analysis.chosen is not None and analysis.chosen.n_seeds > 1:
        parts.append(("Consensus and stability", _consensus(analysis.wording)))
    if analysis.functions is not None:
        parts.append(("Clusters that compute the same thing", _functions(analysis.functions)))
    if analysis.preferred is not None:
        parts.append(("Maximally exciting images", _preferred(analysis.preferred)))
    return parts


def _models(analysis: Analysis) -> str:
    n = int(analysis.sessions["n_neurons"].sum())
    if not analysis.wording.trains:
        return (
            f"Trained elsewhere: {numbered(int(analysis.agreement['n_models'].max()), 'model')} of {n:,} neurons in "
            f"{numbered(len(analysis.sessions), 'session')}. What is clustered for each neuron: "
            f"{' or '.join(space.phrase for space in _spaces(analysis))}. "
            f"{READOUT_VECTORS} {FUNCTIONAL} {DIRECTIONS}{_of_imports(analysis)}"
        )
    function = short_function(analysis.model["fn"])
    return (
        f"Models with a shared core and one readout per session ({function}) predict the responses of "
        f"{n:,} neurons in {len(analysis.sessions)} sessions. {_clustered(analysis)} "
        f"The models are built and trained within nnfabrik {cite('nnfabrik')} with layers of "
        f"neuralpredictors {cite('neuralpredictors')}, and stored in DataJoint tables {cite('datajoint')}."
    )


def _of_imports(analysis: Analysis) -> str:
    """Return what readers must know about models of which only files were available."""
    text = f" The features are those of probe stimuli: {analysis.probes.rstrip('.')}." if analysis.probes else ""
    by_position = analysis.sessions["unit_ids_from"].eq("position")
    if by_position.any():
        text += (
            f" In {int(by_position.sum())} of {len(by_position)} sessions neurons have no unit ids and are matched by "
            "their position, which is right only if all models have the same neurons in the same order."
        )
    return text


def _spaces(analysis: Analysis) -> list[EmbeddingSpace]:
    """Return the spaces that are compared, each once."""
    return list(dict.fromkeys(method.space for method in analysis.agreement["identity"]))


def _clustered(analysis: Analysis) -> str:
    spaces = _spaces(analysis)
    if spaces == [READOUT_SPACE]:
        return "A neuron's readout vector, its weights on the core's features, is what is clustered."
    text = f"What is clustered for each neuron: {', '.join(space.vectors for space in spaces)}. {READOUT_VECTORS}"
    if any(space.is_functional for space in spaces):
        text += f" {FUNCTIONAL}"
    return f"{text} {DIRECTIONS}" if any(space.normalize == "l2" for space in spaces) else text


def _training(analysis: Analysis, entries: pd.DataFrame) -> str:
    rows = analysis.agreement
    # A control ends with its pretraining, whatever else its entry says.
    whole = rows[rows["trainer_role"] != "control"]
    settings = _trainer_settings(entries, set((whole if len(whole) else rows)["trainer_hash"]))
    text = (
        f"The loss and its optimisation follow the SENSORIUM 2022 baselines {cite('sensorium')}: Poisson loss plus the "
        "regularizers of core and readout; early stopping on the mean validation correlation, the best epoch restored. "
    )
    text += _varied(settings, ("pretrain_epochs", "max_iter", "lr_init", "patience", "lr_decay_steps"))
    text += _other_protocol(settings, "TrainingSettings")
    if (rows["trainer_role"] == "control").any():
        text += " Controls end with the pretraining: clusters of their readout vectors are what DECEMber starts from."
    return text


def _december(analysis: Analysis, entries: pd.DataFrame) -> str:
    hashes = set(analysis.agreement.loc[analysis.agreement["method"] == "december", "trainer_hash"])
    settings = _trainer_settings(entries, hashes)
    text = (
        f"DECEMber {cite('december')} adds a clustering loss after the pretraining, in the manner of deep embedded "
        f"clustering {cite('dec')}: a mixture of Student t distributions with diagonal scales, initialised by k-means, "
        "is fitted to all readout vectors by one EM step per optimizer step, and the Kullback-Leibler divergence "
        "between sharpened and soft assignments is added to the loss, times the strength. "
    )
    names = ("n_clusters", "strength", "dof", "weights", "detach_target", "scale_bounds", "kmeans_n_init")
    text += _varied(settings, names)
    text += _other_protocol(settings, "ClusteringSettings")
    return text + (
        " With strength auto, the gradient of the clustering loss on the readout vectors has 0.01 times the norm of "
        "that of the model loss when the clustering begins. A neuron's cluster is the one with the largest "
        "responsibility, which is its confidence."
    )


def _post_hoc(analysis: Analysis) -> str:
    kinds = sorted(set(analysis.agreement["method"]) - {DECEMBER})
    used = [POST_HOC[kind].phrase if kind in POST_HOC else str(kind) for kind in kinds]
    if not analysis.wording.trains:
        return f"Fitted to the vectors of each model separately: {', '.join(used)}.{_left_out(analysis)}"
    if not used:
        return "None, so DECEMber cannot be compared with them."
    return (
        f"Fitted to the {_fitted_to(analysis)} of models that were trained without the clustering loss: "
        f"{', '.join(used)}. Comparing with them shows what the clustering loss has added."
        f"{_left_out(analysis)}"
    )


def _left_out(analysis: Analysis) -> str:
    if all(method.neurons == ALL_NEURONS for method in analysis.agreement["identity"]):
        return ""
    return (
        " Where a test correlation is named, only neurons that the model predicts at least that well (single trials "
        "of the test tier) are clustered, and models are compared over the neurons that both have. The table of "
        "agreement counts the neurons left out."
    )


def _fitted_to(analysis: Analysis) -> str:
    rows = analysis.agreement[analysis.agreement["method"] != DECEMBER]
    return " or ".join(dict.fromkeys(method.space.vectors for method in rows["identity"]))


def _agreement(wording: Wording) -> str:
    many = wording.many
    return (
        f"The adjusted Rand index (ARI {cite('ari')}) of two clusterings of the same neurons is 1 if they are "
        f"identical and 0 on average for random ones. Between {many} it is taken for every pair of {many} of one "
        f"configuration; mean and standard deviation (divisor n − 1) are over these pairs. Pairs share {many}, so this "
        "spread is not a standard error. The test correlation is the mean over neurons of the correlation between "
        "response and prediction over single trials of the test tier; sessions whose test responses are all constant "
        "were not measured there and are left out."
    )


def _null(analysis: Analysis) -> str:
    draws, many = analysis.nulls["n_draws"], analysis.wording.many
    number = f"{draws.min():g}" if draws.min() == draws.max() else f"{draws.min():g} to {draws.max():g}"
    surrogates = "Surrogate readout vectors"
    if analysis.wording.trains and _spaces(analysis) != [READOUT_SPACE]:
        surrogates = "Surrogate vectors, drawn in the space of each clustering,"
    return (
        f"Readouts of different {many} agree on clusters even if there are none. {surrogates} "
        f"({number} draws) have the real ones' mean, covariance and marginals, within and across {many}, but no "
        f"clusters; they are made by iterated amplitude adjustment {cite('surrogates')} and clustered like the real "
        "ones. p is the share of draws that agree at least as well as the data, one-sided, with one added to both "
        "counts. Elliptical surrogates preserve neither bends nor sparse axes, other kinds only some of these: a "
        f"continuum whose shape is not preserved can exceed the null.{_valleys(analysis)}"
    )


def _valleys(analysis: Analysis) -> str:
    if not analysis.nulls["valleys_p_value"].notna().any():
        return ""
    return (
        " The depth of the valley between two clusters is how far, from 0 to 1, the density of their neurons falls "
        f"between its peaks on the line between the two centres, in the vectors of all {analysis.wording.many} side by "
        "side. Its mean is over the passes that connect all clusters and are as shallow as possible, weighted with the "
        f"root of the number of neurons in the smaller cluster, and over {analysis.wording.many}; it is compared with "
        "that of the clusters of the same surrogates."
    )


def _counts(analysis: Analysis) -> str:
    wording = analysis.wording
    return (
        f"Four criteria: agreement between {wording.many} above the mean of its null; log likelihood of held-out "
        f"neurons; Bayesian information criterion; silhouette.{_without_likelihood(analysis)} A criterion "
        "picks a K if it is the only one as good as the best within the error; if several are, it has a range. "
        "Criteria agree on a K if at least two pick it, or narrow it down to less than half of what was tried; the "
        "uncertainty is the range that one of them cannot distinguish. "
        f"{wording.between} can be highest at a K below the true one."
    )


def _without_likelihood(analysis: Analysis) -> str:
    """Return which of the methods have no likelihood, and which find the number of clusters, in sentences."""
    identities = list(dict.fromkeys(analysis.agreement["identity"]))
    without = [each.kind for each in identities if each.kind in METHODS and not METHODS[each.kind].has_likelihood]
    names = [METHODS[kind].name for kind in METHODS if kind in without]
    text = f" {listed(names)} {'has' if len(names) == 1 else 'have'} neither likelihood nor BIC." if names else ""
    found = {each.kind for each in identities if each.finds_count}
    finding = [METHODS[kind].name for kind in METHODS if kind in found]
    if finding:
        text += (
            f" {listed(finding)} {'finds' if len(finding) == 1 else 'find'} the number of clusters of every model: the "
            "K of tables and titles is the median over models, and no criterion has a curve."
        )
    return text


def counts_in_words(choices: pd.DataFrame) -> str:
    """Return what the criteria say about the number of clusters, of all methods together."""
    begin = (
        "A criterion picks a K if no other is as good within the error; otherwise it has a range that it cannot "
        "distinguish, or none where that reaches the smallest or largest K that was tried."
    )
    if choices.empty:
        return begin
    agreed = agreed_counts(choices)
    if agreed is None:
        return f"{begin} Here no two criteria agree on a number of clusters for the same method."
    n = int(choices["count"].notna().sum())
    methods = "methods" if len(choices) > 1 else "method"
    return f"{begin} Here criteria agree on {format_n_clusters(*agreed)}, for {n} of {len(choices)} {methods}."


def _alignment(alignments: pd.DataFrame) -> str:
    ways = ", ".join(dict.fromkeys(alignments["phrase"]))
    text = (
        f"As in rotation-invariant clustering {cite('rotation')}, readout vectors of length 1 are shifted cyclically "
        "along the orientations of the core, each by its own angle, so that the distances between them are small. "
        "A shift by an angle in between interpolates linearly. Angles are found with a relaxation in which all shifts "
        "have a weight; the higher the temperature T, the more the nearest ones dominate. T rises (schedule ramp) or "
        f"is learned from the start (the paper's schedule). Used: {ways}. "
    )
    if (alignments["control"] != "none").any():
        text += (
            "In controls the features of every neuron were permuted before the alignment, or every feature across "
            "neurons: what is found in them comes from the method. "
        )
    return text + (
        "Surrogates, and parts of the neurons, are aligned in the same way, because an alignment can bring vectors "
        "together that do not belong to one type."
    )


def _functions(functions: FunctionalBlocks) -> str:
    if functions.responses == "images":
        responses = "the responses that the model predicts for the stimuli of its training tier"
    else:
        responses = "linear responses, whose covariance is that of the features between two cluster means"
    turned = ""
    if functions.n_orientations > 1:
        turned = (
            f" One of the two means is shifted to each of the core's {functions.n_orientations} orientations, and the "
            "highest correlation counts: clusters may prefer the same at different orientations."
        )
    return (
        f"As in rotation-invariant clustering {cite('rotation')}, the mean readout vector of every cluster "
        f"represents its neurons, and the correlation of {responses} says how alike two clusters are.{turned} Blocks "
        "are made by average linkage: the two blocks whose clusters have the highest mean correlation are merged, "
        f"until it is below {functions.blocks.threshold:g}."
    )


def _preferred(preferred: PreferredImages) -> str:
    whose = "the mean response of models from all seeds" if preferred.n_models > 1 else "the model's response"
    text = (
        f"Maximally exciting images {cite('inception')} are found by gradient ascent on {whose} from noise, with the "
        f"norm of the image's deviations from grey fixed at {preferred.norm:.3g} and gradients divided by spatial "
        "frequency. "
    )
    if len(preferred.compared):
        text += (
            f"As in rotation-invariant clustering {cite('rotation')}, each image was then shown to every other "
            "well-predicted neuron at all angles and positions, and the largest response was divided by that to the "
            "neuron's own image."
        )
    return text.rstrip()


def _consensus(wording: Wording) -> str:
    one, many = wording.one, wording.many
    return (
        f"Cluster numbers mean nothing across {many}. Labels are matched to the {one} that agrees best with the others "
        f"(Hungarian method), then {many} vote; a neuron's stability is the share of {many} that put it into its "
        f"consensus cluster. With S {many} it is at least 1/S, and with few {many} it is coarse."
    )


# --- settings ------------------------------------------------------------------------------------------------------


def _trainer_settings(entries: pd.DataFrame, hashes: set[str]) -> list[dict[str, Any]]:
    """Return the complete settings of trainers, defaults included where the function is ours."""
    rows = entries[(entries["kind"] == "trainer") & entries["hash"].isin(hashes)]
    return [complete_settings(str(row.fn), json.loads(str(row.config))) for row in rows.itertuples()]


def _other_protocol(settings: list[dict[str, Any]], kind: str) -> str:
    """Return what differs from this package's protocol, as :func:`_varied` says it; nothing if nothing does."""
    from december_plugin.training import settings as protocols

    defaults = protocols.protocol_defaults(getattr(protocols, kind))
    names = tuple(n for n, usual in defaults.items() if any(entry.get(n, usual) != usual for entry in settings))
    return f" Other than the defaults: {_varied(settings, names).removeprefix('Settings: ')}" if names else ""


def _varied(settings: list[dict[str, Any]], names: tuple[str, ...]) -> str:
    """Return the values of settings in all entries, as "name: value, value; ..."."""
    from december_plugin.plots.style import natural_order

    parts = []
    for name in names:
        values = sorted({_written(entry[name]) for entry in settings if name in entry}, key=natural_order)
        if values:
            parts.append(f"{SETTINGS.get(name, name)} {', '.join(values)}")
    return f"Settings: {'; '.join(parts)}." if parts else ""


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return " to ".join(_written(entry) for entry in value)
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)
