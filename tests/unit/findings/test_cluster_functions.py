"""What a report says about clusters that respond alike."""

from __future__ import annotations

import numpy as np

from december_plugin.evaluation.cluster_functions import cluster_blocks
from helpers import reports


def test_clusters_that_respond_alike_are_named_with_the_merges_about_the_threshold() -> None:
    found = reports.functions(clusters=np.array([0, 1, 2, 4, 7, 9]))
    assert sorted(map(sorted, found.members)) == [[0, 2], [1, 7, 9], [4]]
    assert found.block_of[1] == found.block_of[7] != found.block_of[4]
    assert found.words.startswith("The 6 clusters make 3 blocks at a mean correlation of 0.5. ")
    assert "1, 7 and 9" in found.words
    assert "0 and 2" in found.words
    assert "The last merge was at 0.80 and the next one would be at 0.20" in found.words


def test_clusters_that_have_nothing_in_common_are_left_alone() -> None:
    correlations = np.eye(6)
    found = reports.functions(correlations=correlations, blocks=cluster_blocks(correlations))
    assert found.words.startswith("No two of the 6 clusters respond alike at a mean correlation of 0.5")


def test_of_many_blocks_their_number_is_said() -> None:
    common = np.repeat(np.arange(8), 2)
    correlations = np.where(common[:, None] == common, 0.8, 0.1) + 0.2 * np.eye(16)
    many = {"clusters": np.arange(16), "sizes": np.ones(16), "correlations": correlations}
    found = reports.functions(**many, blocks=cluster_blocks(correlations))
    assert "8 of the blocks have several clusters." in found.words
    assert "Clusters that respond alike" not in found.words
    one = reports.functions(**many, blocks=cluster_blocks(correlations, threshold=-1.0))
    assert "0, 1, 2, 3, 4 and 11 more" in one.words
    assert "The last merge was at 0.10: the wider" in one.words
