"""Frames that the figures of the paper cannot be drawn from: what is said."""

import re

import numpy as np
import pandas as pd
import pytest

from december_plugin import plots
from december_plugin.errors import SettingsError
from helpers import figure_frames as frames

_MANY = frames.coordinates(("a", "b", "c", "d", "e", "f"), n=20)
_OTHER_NEURONS = frames.coordinates(n=20).drop(index=0)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda: plots.toy_figure(frames.toy()[0].assign(kind="x"), frames.toy()[1]),
            "a kind of the frame of weights is 'x'; allowed: neuron, center.",
        ),
        (
            lambda: plots.toy_figure(frames.toy()[0], frames.toy()[1].iloc[:0]),
            "the frame of distances has no rows: there are no steps that could be drawn.",
        ),
        (
            lambda: plots.confusion_figure([[1, 2]]),
            "the confusion matrix is list; it must be a pandas.DataFrame of counts, index clusters, columns types.",
        ),
        (
            lambda: plots.confusion_figure(frames.confusion() * 0.5),
            "the confusion matrix holds values that are not counts.",
        ),
        (
            lambda: plots.confusion_figure(frames.confusion().iloc[:0]),
            "the confusion matrix is empty: no neuron has both a cluster and a known type.",
        ),
        (
            lambda: plots.known_types_figure(pd.concat([frames.known_types()] * 2), frames.confusion()),
            "the table has more than one row with label = 'DECEMber, strength auto', n_clusters = 4. Draw one dataset "
            "and model at a time.",
        ),
        (
            lambda: plots.strength_figure(frames.strength_performance().head(1), frames.strength_agreement()),
            "the frame of performance has no strength above 0: there is no model with a clustering loss.",
        ),
        (
            lambda: plots.strength_figure(frames.strength_performance(), frames.strength_agreement(), _MANY),
            "the frame of coordinates has 6 methods; at most 5 fit above the other panels. embedding_panels_figure "
            "draws any number.",
        ),
        (
            lambda: plots.embedding_panels_figure(_OTHER_NEURONS),
            "the frame of coordinates: 'baseline' and 'DECEMber, strength 0.1' do not have the same neurons, each of "
            "them once.",
        ),
        (
            lambda: plots.tsne_frame({}, pd.DataFrame(), {}),
            "there are no readout vectors; a mapping of method to vectors (N, D) is needed.",
        ),
        (
            lambda: plots.tsne_frame(
                {"a": np.eye(3)}, pd.DataFrame({"data_key": ["x"] * 4, "unit_id": range(4)}), {"a": [1, 2]}
            ),
            "'a' has 3 readout vectors and 2 groups for 4 neurons; every method needs one of each per neuron, in the "
            "same order.",
        ),
        (
            lambda: plots.pretraining_figure(frames.learning_rates((1.0, 2.0)), frames.pretraining_agreement()),
            "the frame of performance has more than one row with pretrain_epochs = 5, learning_rate = 0.001. Draw one "
            "dataset, model and strength at a time.",
        ),
        (
            lambda: plots.learning_rate_figure(frames.learning_rates().drop(columns="test_correlation_sd")),
            "the frame of performance has no column 'test_correlation_sd'. Needed: strength, pretrain_epochs, "
            "learning_rate, validation_correlation_mean, validation_correlation_sd, test_correlation_mean, "
            "test_correlation_sd. It has: strength, pretrain_epochs, learning_rate, validation_correlation_mean, "
            "validation_correlation_sd, test_correlation_mean.",
        ),
        (
            lambda: plots.datasets_figure(frames.datasets().assign(n_neurons=0)),
            "the column 'n_neurons' of the table must hold numbers of neurons, at least 1.",
        ),
        (
            lambda: plots.restarts_figure(frames.restarts().iloc[:0]),
            "the frame of pairs has no rows: no model has been clustered with several random starts.",
        ),
        (
            lambda: plots.measures_figure(frames.measures().assign(agreement_sd=-1)),
            "the column 'agreement_sd' of the table holds a negative standard deviation.",
        ),
        (
            lambda: plots.equivariant_figure(
                frames.agreement(), frames.equivariant_performance().assign(test_correlation_mean="x")
            ),
            "the column 'test_correlation_mean' of the frame of performance holds values that are not numbers.",
        ),
        (
            lambda: plots.null_figure(frames.nulls().assign(null_mean=np.nan)),
            "the column 'null_mean' of the table of nulls holds no finite value.",
        ),
        (
            lambda: plots.cluster_count_figure(frames.cluster_counts().assign(n_clusters=2.5)),
            "the column 'n_clusters' of the table must hold integers of at least 1.",
        ),
        (
            lambda: plots.cluster_count_figure(frames.cluster_counts((6,))),
            "the table has one number of clusters for each method (K = 6); criteria are compared along at least two of "
            "one method.",
        ),
        (
            lambda: plots.consensus_figure(frames.consensus().assign(stability=2)),
            "the column 'stability' of the frame of the consensus must hold shares between 0 and 1.",
        ),
        (
            lambda: plots.consensus_figure(frames.consensus().assign(cluster=-1)),
            "most seeds leave every neuron without a cluster, so there is no consensus to draw.",
        ),
        (
            lambda: plots.calibration_figure(frames.calibration().assign(n_neurons=0)),
            "the table of calibration has no bin with neurons.",
        ),
    ],
)
def test_frames_that_cannot_be_drawn(draw, message):
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        draw()
