"""Agreement between partitions, against scikit-learn, plain loops and numbers worked out by hand."""

import doctest
import itertools
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from december_plugin.embeddings.neuron_ids import NeuronIds, match_neurons
from december_plugin.errors import DecemberError, SettingsError
from december_plugin.evaluation import agreement, matching
from december_plugin.evaluation.agreement import (
    MEASURES,
    agreement_across_seeds,
    agreement_with_types,
    compare_partitions,
    pool_mean_sd,
)


def scikit_learn(a, b):
    return (
        metrics.adjusted_rand_score(a, b),
        metrics.fowlkes_mallows_score(a, b),
        *metrics.homogeneity_completeness_v_measure(a, b),
    )


def two_partitions(seed, n, k_a, k_b, agreement=0.5):
    rng = np.random.default_rng(seed)
    a = rng.integers(0, k_a, n)
    return a, np.where(rng.random(n) < agreement, a % k_b, rng.integers(0, k_b, n))


partitions = st.integers(1, 40).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-3, 6), min_size=n, max_size=n)] * 2)
)


class TestComparePartitions:
    @given(partitions)
    @settings(max_examples=80, deadline=None)
    def test_equals_scikit_learn(self, labels):
        a, b = labels
        assert compare_partitions(a, b).measures == pytest.approx(scikit_learn(a, b), abs=1e-12)

    @pytest.mark.parametrize(
        ("a", "b"),
        [
            ([0], [5]),
            ([0, 0, 0], [1, 1, 1]),
            ([0, 1, 2, 3], [9, 8, 7, 6]),
            ([0, 1, 2, 3], [0, 0, 0, 0]),
            ([0, 0, 0, 0], [0, 1, 2, 3]),
            ([0, 0, 1, 1], [0, 1, 0, 1]),
            ([0, 0, 0, 1], [0, 0, 0, 1]),
        ],
        ids=["one neuron", "one cluster", "singletons", "singletons, one cluster", "reverse", "worst", "unbalanced"],
    )
    def test_equals_scikit_learn_where_it_is_degenerate(self, a, b):
        assert compare_partitions(a, b).measures == pytest.approx(scikit_learn(a, b), abs=1e-12)

    def test_worked_example(self):
        # 6 neurons, table [[2, 0, 0], [0, 1, 1], [0, 0, 2]]: 2 pairs together in both, 3 in a, 4 in b, of 15.
        result = compare_partitions([0, 0, 1, 1, 2, 2], [0, 0, 1, 2, 2, 2])
        assert result.adjusted_rand_index == pytest.approx((2 - 3 * 4 / 15) / ((3 + 4) / 2 - 3 * 4 / 15))
        assert result.fowlkes_mallows == pytest.approx(2 / math.sqrt(3 * 4))
        assert result.n_neurons == 6

    @pytest.mark.parametrize(("k_a", "k_b"), [(50, 50), (2, 3000), (20_000, 15_000)])
    def test_equals_scikit_learn_at_the_size_of_a_real_study(self, k_a, k_b):
        a, b = two_partitions(0, 54_569, k_a, k_b)
        assert compare_partitions(a, b).measures == pytest.approx(scikit_learn(a, b), abs=1e-12)

    def test_equals_scikit_learn_for_a_tiny_second_cluster(self):
        a, b = np.zeros(50_000, dtype=int), np.zeros(50_000, dtype=int)
        a[:40], b[20:70] = 1, 1
        assert compare_partitions(a, b).measures == pytest.approx(scikit_learn(a, b), abs=1e-12)

    @given(partitions, st.randoms(use_true_random=False))
    @settings(max_examples=30, deadline=None)
    def test_neither_the_order_of_neurons_nor_the_names_of_clusters_matter(self, labels, random):
        a, b = labels
        order = random.sample(range(len(a)), len(a))
        renamed = {value: f"cluster {position}" for position, value in enumerate(random.sample(range(-3, 7), 10))}
        again = compare_partitions([a[i] for i in order], [renamed[b[i]] for i in order])
        assert again.measures == pytest.approx(compare_partitions(a, b).measures, abs=1e-12)

    @given(partitions)
    @settings(max_examples=30, deadline=None)
    def test_exchange_swaps_homogeneity_and_completeness_and_keeps_the_rest(self, labels):
        forth, back = compare_partitions(*labels), compare_partitions(*reversed(labels))
        exchanged = replace(forth, homogeneity=forth.completeness, completeness=forth.homogeneity)
        assert back.measures == pytest.approx(exchanged.measures, abs=1e-12)

    @pytest.mark.parametrize(
        "convert",
        [
            list,
            tuple,
            np.array,
            lambda x: np.array(x, dtype=np.int8),
            lambda x: np.array(x, dtype=np.uint64) + np.uint64(2**63),
            lambda x: np.array(x) * (2**62),
            lambda x: np.array(x, dtype=float) / 3,
            lambda x: np.array(x, dtype=str),
            lambda x: [("cluster", i) for i in x],
            lambda x: pd.Series(x, dtype="Int64"),
            lambda x: pd.Categorical([f"type {i}" for i in x]),
            torch.tensor,
        ],
        ids=[
            "list",
            "tuple",
            "array",
            "int8",
            "uint64",
            "far",
            "float",
            "str",
            "tuples",
            "nullable",
            "category",
            "tensor",
        ],
    )
    def test_takes_any_labels(self, convert):
        a, b = [-1, 1, 1, 0, 0, -1, 1], [0, 1, 1, 1, 0, 0, 0]
        a = [value + 1 for value in a]
        assert compare_partitions(convert(a), b).measures == compare_partitions(a, b).measures

    def test_a_number_and_its_text_are_different_labels(self):
        assert compare_partitions([1, "1", 2, 2], [0, 1, 2, 2]).adjusted_rand_index == 1.0

    @pytest.mark.parametrize(
        ("a", "b", "message"),
        [
            ([], [], "a is empty; agreement needs at least one neuron."),
            (
                [0, 1],
                [0],
                "a has 2 entries and b has 1; they must belong to the same neurons. Pass the identities of both to "
                "match them by session and unit id.",
            ),
            ([0, 1], [0, None], "b has 1 missing labels (None or NaN) of 2; a partition assigns every neuron."),
            (
                [0.0, math.nan],
                [0, 1],
                "a has 1 missing labels (None or NaN) of 2; a partition assigns every neuron.",
            ),
            ([[0], [1]], [0, 1], "a has a value that cannot be a label (unhashable type: 'list'); labels must be "),
            (np.zeros((2, 1)), [0, 1], "a has shape (2, 1); it must be (N,), one label per neuron."),
            ("0101", [0, 1], "a is str; it must be a sequence of labels, one per neuron."),
            ({0, 1}, [0, 1], "a is set; it must be a sequence of labels, one per neuron."),
            (3, [0, 1], "a is int; it must be a sequence of labels, one per neuron."),
        ],
        ids=["empty", "lengths", "None", "NaN", "unhashable", "table", "text", "set", "number"],
    )
    def test_errors(self, a, b, message):
        with pytest.raises(SettingsError, match=re.escape(message)) as caught:
            compare_partitions(a, b)
        assert isinstance(caught.value, DecemberError)


class TestIdentity:
    def test_labels_are_matched_by_session_and_unit_id(self):
        ids_a = {"one": [1, 2, 3], "two": [1, 2]}
        ids_b = (["two", "one", "one", "two", "one"], [2, 3, 1, 1, 2])
        labels = {("one", 1): 0, ("one", 2): 0, ("one", 3): 1, ("two", 1): 1, ("two", 2): 2}
        a = list(labels.values())
        b = [labels[key] for key in zip(*ids_b, strict=True)]
        assert compare_partitions(a, b).adjusted_rand_index < 1
        assert compare_partitions(a, b, ids_a=ids_a, ids_b=ids_b).adjusted_rand_index == 1

    def test_positions_of_the_same_neurons(self):
        at_a, at_b = match_neurons({"x": [10, 11, 12]}, {"x": [12, 9, 10]}, common_only=True)
        np.testing.assert_array_equal(at_a, [0, 2])
        np.testing.assert_array_equal(at_b, [2, 0])
        assert at_a.dtype == at_b.dtype == np.int64

    def test_equal_identities_keep_their_order(self):
        at_a, at_b = match_neurons({"x": [3, 1]}, (["x", "x"], [3, 1]))
        np.testing.assert_array_equal([at_a, at_b], [[0, 1], [0, 1]])

    @given(st.permutations(list(range(12))), st.permutations(list(range(12))))
    @settings(max_examples=30, deadline=None)
    def test_matching_equals_a_plain_loop(self, order_a, order_b):
        everyone = [(key, unit) for key in "ab" for unit in range(6)]
        a, b = [everyone[i] for i in order_a[:9]], [everyone[i] for i in order_b[:9]]
        at_a, at_b = match_neurons(*(tuple(zip(*side, strict=True)) for side in (a, b)), common_only=True)
        expected = [(i, b.index(neuron)) for i, neuron in enumerate(a) if neuron in b]
        assert list(zip(at_a, at_b, strict=True)) == expected

    def test_different_neurons_are_an_error_unless_allowed(self):
        ids_a, ids_b = {"x": [1, 2, 3, 4]}, {"x": [2, 3, 4], "y": [1]}
        message = (
            "the two assignments cover different neurons: 4 and 4, of which 3 in both, 1 only in the first and 1 only "
            "in the second. Set common_only=True to compare the common neurons only, or compare models of the same "
            "sessions."
        )
        with pytest.raises(SettingsError, match=re.escape(message)):
            compare_partitions([0, 0, 1, 1], [0, 1, 1, 0], ids_a=ids_a, ids_b=ids_b)
        result = compare_partitions([0, 0, 1, 1], [0, 1, 1, 0], ids_a=ids_a, ids_b=ids_b, common_only=True)
        assert (result.n_neurons, result.adjusted_rand_index) == (3, 1.0)

    def test_nothing_in_common_is_always_an_error(self):
        message = (
            "of which 0 in both, 1 only in the first and 1 only in the second. Compare models of the same sessions."
        )
        with pytest.raises(SettingsError, match=re.escape(message)):
            match_neurons({"x": [1]}, {"y": [1]}, common_only=True)

    @pytest.mark.parametrize(
        ("ids", "message"),
        [
            ({"x": [1, 2, 2]}, "unit 2 of session 'x' occurs more than once (1 neurons do)"),
            ((["x"], [1, 2]), "data_keys has shape (1,) and unit_ids (2,); both must be (N,), one entry per neuron."),
            (7, "ids is int; it must be a mapping of data key to unit ids, a pair (data_keys, unit_ids)"),
        ],
        ids=["duplicates", "shapes", "type"],
    )
    def test_bad_identities(self, ids, message):
        with pytest.raises(SettingsError, match=re.escape(message)):
            NeuronIds.of(ids)

    def test_identities_of_one_side_only(self):
        with pytest.raises(SettingsError, match="b has no identities, but what it is compared with has; give both"):
            compare_partitions([0], [0], ids_a={"x": [1]})

    def test_identities_of_another_number_of_neurons(self):
        with pytest.raises(SettingsError, match="b has 2 labels, but identities of 1 neurons"):
            compare_partitions([0, 1], [0, 1], ids_a={"x": [1, 2]}, ids_b={"x": [1]})

    def test_unknown_unit_ids_of_embeddings(self):
        class Embeddings:
            data_keys = np.array(["x"])
            unit_ids = None

        with pytest.raises(SettingsError, match="these neurons have no unit ids; pass unit_ids where the embeddings"):
            NeuronIds.of(Embeddings())

    def test_of_returns_what_is_checked_already(self):
        ids = NeuronIds(np.array(["x"]), np.array([1]))
        assert NeuronIds.of(ids) is ids
        assert len(ids) == 1


class TestAcrossSeeds:
    labels = {seed: two_partitions(seed, 200, 4, 4)[0] // (1 + seed % 2) for seed in range(4)}  # noqa: RUF012

    def test_mean_sd_and_number_over_all_unordered_pairs(self):
        summary = agreement_across_seeds(self.labels)
        expected = [scikit_learn(self.labels[a], self.labels[b]) for a, b in itertools.combinations(range(4), 2)]
        assert summary.n_pairs == len(summary.pairs) == 6
        assert summary.n_neurons == 200
        assert [pair[:2] for pair in summary.pairs] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
        for position, name in enumerate(MEASURES):
            column = [row[position] for row in expected]
            mean = sum(column) / 6
            assert getattr(summary.mean, name) == pytest.approx(mean, abs=1e-12)
            sd = math.sqrt(sum((value - mean) ** 2 for value in column) / 5)
            assert getattr(summary.sd, name) == pytest.approx(sd, abs=1e-12)

    def test_one_pair_has_no_spread(self):
        summary = agreement_across_seeds({0: [0, 1], 1: [0, 1]})
        assert summary.n_pairs == 1
        assert summary.mean.adjusted_rand_index == 1.0
        assert math.isnan(summary.sd.adjusted_rand_index)

    def test_neurons_are_matched(self):
        ids = {0: {"x": [1, 2, 3]}, 1: {"x": [3, 2, 1]}, 2: {"x": [2, 3, 4]}}
        labels = {0: [0, 0, 1], 1: [1, 0, 0], 2: [0, 1, 1]}
        with pytest.raises(SettingsError, match="cover different neurons: 3 and 3, of which 2 in both"):
            agreement_across_seeds(labels, ids=ids)
        summary = agreement_across_seeds(labels, ids=ids, common_only=True)
        assert summary.mean.adjusted_rand_index == 1.0
        assert summary.n_neurons == 2

    def test_a_single_seed(self):
        with pytest.raises(SettingsError, match="agreement across seeds needs at least two seeds; there is 1"):
            agreement_across_seeds({0: [0, 1]})

    def test_a_seed_without_identities(self):
        with pytest.raises(SettingsError, match="ids has no entry for seed 7; give the identities of every seed"):
            agreement_across_seeds({1: [0], 7: [0]}, ids={1: {"x": [1]}})

    def test_a_seed_with_other_neurons(self):
        with pytest.raises(
            SettingsError, match="seed 0 has 2 entries and seed 'b' has 1; they must belong to the same"
        ):
            agreement_across_seeds({0: [0, 1], "b": [0]})


class TestWithTypes:
    def test_only_labelled_neurons_count(self):
        clusters = [0, 0, 1, 1, 2, 2, 0, 1]
        types = ["Pvalb", "Pvalb", "Sst", "Sst", "Vip", "Sst", None, ""]
        result = agreement_with_types(clusters, types)
        assert (result.n_labelled, result.n_neurons) == (6, 8)
        expected = scikit_learn(["p", "p", "s", "s", "v", "s"], [0, 0, 1, 1, 2, 2])
        assert result.agreement.measures == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize(
        "types",
        [
            [0, 0, 1, -1],
            np.array([0, 0, 1, -1], dtype=np.int16),
            np.array([0, 0, 1, np.nan]),
            ["a", "a", "b", ""],
            np.array(["a", "a", "b", ""]),
            pd.Series(["a", "a", "b", pd.NA], dtype="string"),
            pd.Series([0, 0, 1, None], dtype="Int64"),
            [0, 0, 1, float("nan")],
        ],
        ids=["-1", "int16", "NaN", "empty text", "text array", "NA text", "NA int", "NaN in a list"],
    )
    def test_marks_of_an_unknown_type(self, types):
        result = agreement_with_types([1, 1, 0, 0], types)
        assert result.n_labelled == 3
        assert result.agreement.adjusted_rand_index == 1.0

    def test_other_marks(self):
        assert agreement_with_types([1, 1, 0, 0], ["a", "a", "b", "?"], missing=["?"]).n_labelled == 3
        assert agreement_with_types([1, 1, 0, 0], [0, 0, -1, -1], missing=()).agreement.adjusted_rand_index == 1.0

    def test_homogeneity_is_that_of_the_clusters(self):
        result = agreement_with_types([0, 1, 2, 3], ["a", "a", "b", "b"]).agreement
        assert (result.homogeneity, result.completeness) == pytest.approx((1.0, 0.5))

    def test_types_of_some_neurons_by_identity(self):
        ids = {"x": [1, 2, 3], "y": [1, 2, 3]}
        type_ids = (["y", "x", "x", "z"], [3, 1, 2, 1])
        result = agreement_with_types([0, 0, 1, 1, 1, 2], ["b", "a", "a", "c"], ids=ids, type_ids=type_ids)
        assert (result.n_labelled, result.n_neurons) == (3, 6)
        assert result.agreement.adjusted_rand_index == 1.0

    @pytest.mark.parametrize(
        ("types", "identities", "message"),
        [
            ([None, ""], {}, "none of the 2 types is known (None, NaN and -1, '' count as unknown)."),
            (["a"], {}, "labels has 2 entries and types has 1; they must belong to the same neurons."),
            (["a", "b"], {"ids": {"x": [1, 2]}}, "types has no identities, but what it is compared with has"),
            (["a", "b"], {"type_ids": {"x": [1, 2]}}, "labels has no identities, but what it is compared with has"),
            ([["a"], ["b"]], {}, "types has a value that cannot be a label (unhashable type: 'list')"),
            (
                ["a", "b"],
                {"ids": {"x": [1, 2]}, "type_ids": {"y": [1, 2]}},
                "the two assignments cover different neurons: 2 and 2, of which 0 in both",
            ),
        ],
        ids=["unknown", "lengths", "one side", "other side", "unhashable", "strangers"],
    )
    def test_errors(self, types, identities, message):
        with pytest.raises(SettingsError, match=re.escape(message)):
            agreement_with_types([0, 1], types, **identities)


@pytest.mark.parametrize("module", [agreement, matching])
def test_examples(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


class TestPooledMeans:
    def test_worked_example(self):
        # Weights 1/4 and 3/4: mean 0.35; variance (0.01/4 + 3 * 0.04/4) + (0.0225/4 + 3 * 0.0025/4) = 0.04.
        mean, sd = pool_mean_sd([0.2, 0.4], [0.1, 0.2], [100, 300])
        assert mean == pytest.approx(0.35)
        assert sd == pytest.approx(0.2)

    def test_equals_the_moments_of_the_pooled_draws(self):
        rng = np.random.default_rng(0)
        groups = [rng.normal(size=n) + n for n in (3, 10, 40)]
        mean, sd = pool_mean_sd([g.mean() for g in groups], [g.std() for g in groups], [len(g) for g in groups])
        pooled = np.concatenate(groups)
        np.testing.assert_allclose((mean, sd), (pooled.mean(), pooled.std()), rtol=1e-12)

    def test_a_group_without_spread_leaves_none(self):
        mean, sd = pool_mean_sd([0.2, 0.4], [math.nan, 0.1], [10, 10])
        assert mean == pytest.approx(0.3)
        assert math.isnan(sd)

    @pytest.mark.parametrize("n", [[0, 0], [3, -1]])
    def test_sizes_that_are_no_weights(self, n):
        with pytest.raises(SettingsError, match="the sizes of the groups must not be negative, and not all zero"):
            pool_mean_sd([0.1, 0.2], [0.0, 0.0], n)


class TestNeuronsWithoutACluster:
    def test_are_left_out(self):
        a, b = [0, 0, 1, 1, -1, -1, 2], [1, 1, 0, -1, 0, -1, 0]
        found = compare_partitions(a, b, no_cluster=-1)
        assert found == compare_partitions([0, 0, 1, 2], [1, 1, 0, 0])
        assert found.n_neurons == 4
        names = ["none" if label < 0 else f"cluster {label}" for label in a]
        assert compare_partitions(names, [str(label) for label in b], no_cluster="none").n_neurons == 5
        assert compare_partitions(a, b).n_neurons == 7

    def test_agree_on_nothing_where_there_are_no_others(self):
        found = compare_partitions([0, -1, 0], [-1, 1, -1], no_cluster=-1)
        assert (found.measures, found.n_neurons) == ((0.0,) * 5, 0)

    def test_across_seeds_and_with_types(self):
        labels = {1: [0, 0, 1, -1], 2: [1, 1, 0, 0], 3: [-1, 0, 1, 1]}
        across = agreement_across_seeds(labels, no_cluster=-1)
        assert [pair.agreement.n_neurons for pair in across.pairs] == [3, 2, 3]
        types = agreement_with_types(labels[1], ["a", "a", "b", "a"], no_cluster=-1)
        assert (types.agreement.adjusted_rand_index, types.agreement.n_neurons, types.n_labelled) == (1.0, 3, 4)
