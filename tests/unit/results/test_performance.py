"""The labels of rows that tell how well models predict."""

from __future__ import annotations

import pandas as pd

from december_plugin.embeddings.space import READOUT_SPACE, EmbeddingSpace
from december_plugin.evaluation.methods import Method
from december_plugin.results.performance import with_model_labels

BASELINE, FOUR, TWO = (f"{number:032d}" for number in range(3))


def configuration(
    trainer_hash: str, label: str, n_clusters: int, space: EmbeddingSpace = READOUT_SPACE
) -> dict[str, object]:
    key = {"trainer_fn": "trainers.fn", "trainer_hash": trainer_hash, "n_clusters": n_clusters}
    return {**key, "label": label, "method": label.partition(",")[0], "identity": Method(label, space=space)}


def test_trainers_of_one_name_are_distinguished_by_their_numbers_of_clusters() -> None:
    labelled = pd.DataFrame(
        [
            configuration(TWO, "DECEMber", 2),
            configuration(BASELINE, "k-means", 2),
            configuration(FOUR, "DECEMber", 4),
            configuration(BASELINE, "k-means", 4),
            configuration(BASELINE, "k-means, functional", 4, EmbeddingSpace(space="functional")),
            configuration(BASELINE, "t mixture", 4),
        ]
    )
    performance = pd.DataFrame(
        {"trainer_fn": "trainers.fn", "trainer_hash": [BASELINE, FOUR, TWO], "test_correlation_mean": [0.3, 0.4, 0.2]}
    )
    frame = with_model_labels(labelled, performance)
    assert list(zip(frame["label"], frame["test_correlation_mean"], strict=True)) == [
        ("DECEMber, K = 2", 0.2),
        ("DECEMber, K = 4", 0.4),
        ("k-means / t mixture", 0.3),
    ]
