"""Confusion of clusters and types, against plain loops and all permutations."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix as reference

from december_plugin.datasets.type_labels import by_session, read_type_labels, unknown_neurons
from december_plugin.errors import SettingsError
from december_plugin.evaluation.confusion import confusion_matrix, matched_order


def test_a_matrix_by_hand() -> None:
    clusters = [7, 7, 7, 5, 5, 5, 5, 9]
    types = ["ON", "ON", "OFF", "OFF", "OFF", "OFF", None, ""]
    found = confusion_matrix(clusters, types)
    assert found.frame().to_dict() == {"ON": {7: 2, 5: 0, 9: 0}, "OFF": {7: 1, 5: 3, 9: 0}}
    assert (found.n_matched, found.n_labelled, found.n_unlabelled, found.n_unassigned) == (2, 6, 2, 0)
    assert found.cluster_sizes.tolist() == [3, 4, 1]
    assert found.recall.tolist() == [1.0, 0.75]
    assert found.precision.tolist() == [2 / 3, 1.0]
    assert found.accuracy == 5 / 6
    assert found.per_type().to_dict("index") == {
        "ON": {"cluster": 7, "n_neurons": 2, "recall": 1.0, "precision": 2 / 3},
        "OFF": {"cluster": 5, "n_neurons": 4, "recall": 0.75, "precision": 1.0},
    }


def test_more_types_than_clusters() -> None:
    found = confusion_matrix([0] * 4 + [1] * 3, ["a", "a", "b", "c", "b", "b", "b"])
    assert (found.types, found.clusters, found.n_matched) == (("a", "b", "c"), (0, 1), 2)
    np.testing.assert_array_equal(found.recall, [1.0, 0.75, 0.0])
    np.testing.assert_array_equal(found.precision, [0.5, 1.0, np.nan])
    assert found.per_type()["cluster"].tolist() == [0, 1, None]


def test_neurons_are_matched_by_session_and_unit_and_most_may_have_no_type() -> None:
    ids = {"a": [1, 2, 3], "b": [1, 2]}
    type_ids = (np.array(["b", "a", "elsewhere", "b"]), np.array([1, 3, 3, 2]))
    found = confusion_matrix([0, 0, 1, 1, 0], ["x", "x", "z", np.nan], ids=ids, type_ids=type_ids)
    # Units 1 of b and 3 of a are in cluster 1; type z is nobody's.
    assert found.frame().loc[1].to_dict() == {"x": 2, "z": 0}
    assert found.frame().loc[0].to_dict() == {"x": 0, "z": 0}
    assert (found.n_unlabelled, found.n_unassigned) == (3, 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 5), st.integers(1, 40))
def test_against_loops_permutations_and_scikit_learn(seed: int, n_clusters: int, n_types: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    clusters, types = rng.integers(n_clusters, size=n), rng.integers(n_types, size=n)
    types[rng.random(n) < 0.3] = -1
    if (types < 0).all():
        types[0] = 0
    found = confusion_matrix(clusters, types)
    for i, cluster in enumerate(found.clusters):
        for j, kind in enumerate(found.types):
            count = sum(1 for c, t in zip(clusters, types, strict=True) if c == cluster and t == kind)
            assert found.counts[i, j] == count
    known = types >= 0
    table = reference(types[known], clusters[known], labels=range(max(n_clusters, n_types)))
    best = max(sum(table[i, j] for i, j in enumerate(order)) for order in itertools.permutations(range(len(table))))
    assert np.trace(found.counts) == best
    assert found.counts.sum() == known.sum()
    for kind, recall, precision in zip(found.types, found.recall, found.precision, strict=True):
        j = found.types.index(kind)
        if j < found.n_matched:
            inside = clusters[known] == found.clusters[j]
            hits = (inside & (types[known] == kind)).sum()
            assert recall == pytest.approx(hits / (types == kind).sum())
            assert precision == pytest.approx(hits / inside.sum() if inside.any() else np.nan, nan_ok=True)


def test_renaming_and_permuting_change_nothing() -> None:
    rng = np.random.default_rng(3)
    clusters, types = rng.integers(4, size=200), rng.integers(4, size=200).astype(str).astype(object)
    first = confusion_matrix(clusters, types)
    order, names = rng.permutation(200), rng.permutation(4)
    second = confusion_matrix(names[clusters[order]], types[order])
    np.testing.assert_array_equal(first.counts, second.counts)
    assert [names[cluster] for cluster in first.clusters] == list(second.clusters)


def test_rows_without_a_partner_are_ordered_by_size() -> None:
    rows, columns, n_matched = matched_order([[1], [9], [4]], [10, 20, 30])
    assert (rows.tolist(), columns.tolist(), n_matched) == ([1, 2, 0], [0], 1)
    assert matched_order([[1], [9], [4]])[0].tolist() == [1, 2, 0]


def test_types_are_ordered_as_people_count() -> None:
    assert confusion_matrix([0, 1, 2], ["type 10", "type 2", "type 1"]).types == ("type 1", "type 2", "type 10")


def test_a_type_and_a_cluster_without_a_common_neuron_are_not_matched() -> None:
    found = confusion_matrix([0, 0, 0, 0, 0, 1, 1], list("aaaabaa"))
    assert (found.clusters, found.types, found.n_matched) == ((0, 1), ("a", "b"), 1)
    assert found.per_type()["cluster"].tolist() == [0, None]
    assert found.recall.tolist() == pytest.approx([4 / 6, 0])
    assert found.precision.tolist() == pytest.approx([4 / 5, np.nan], nan_ok=True)
    assert found.accuracy == pytest.approx(4 / 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], ["a"]), r"there are 2 clusters and 1 types; they must belong to the same neurons\. Pass the ident"),
        (([0], [None]), r"none of the 1 types is known \(None, NaN and -1 and '' are unknown\)\."),
        (([], []), r"clusters has shape \(0,\); it must be \(N,\), one entry per neuron\."),
        (([None], ["a"]), r"1 neurons have no cluster \(None or NaN\)\."),
    ],
)
def test_errors(arguments: tuple, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        confusion_matrix(*arguments)


def test_errors_of_identities() -> None:
    with pytest.raises(SettingsError, match=r"identities of clusters and types are needed both, or neither"):
        confusion_matrix([0], ["a"], ids={"s": [1]})
    with pytest.raises(SettingsError, match=r"there are 2 types, but identities of 1 neurons\."):
        confusion_matrix([0], ["a", "b"], ids={"s": [1]}, type_ids={"s": [1]})
    with pytest.raises(SettingsError, match=r"of which 0 in both"):
        confusion_matrix([0], ["a"], ids={"s": [1]}, type_ids={"s": [2]})


# --- labels from files -------------------------------------------------------------------------------------------


def test_labels_are_read(tmp_path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("unit_id; type ;data_key;note\n3;ON;b;x\n1;;a;\n2;unknown;a;\n4; 7 ;a;\n", encoding="utf-8-sig")
    labels = read_type_labels(path)
    assert labels.to_dict("list") == {"data_key": ["b", "a"], "unit_id": [3, 4], "type": ["ON", "7"]}
    assert labels.attrs["n_unlabelled"] == 2
    assert by_session(labels) == {"a": ([4], ["7"]), "b": ([3], ["ON"])}


def test_labels_whose_text_is_kept(tmp_path) -> None:
    path = tmp_path / "labels.csv"
    lines = [
        "note;type;unit_id;data_key;",  # a delimiter at the end of every line
        'x;"PV; fast ""spiking""";12;0012;',
        "x;PV, regular;-3;2021_03_05;;",
        "x;3;0;1e3;",  # 3 and 3.0 are one type, as in a column of numbers
        "x;3.0;1;1e3;",
        "x;-1.0;2;1e3;",
        "x;3.50;4;1e3;",
        'x;"two\u2028lines";9223372036854775807;1e3;',
        "",
        "x;;5;1e3",
    ]
    path.write_text("\r\n".join(lines), encoding="utf-8", newline="")
    labels = read_type_labels(path)
    assert labels["data_key"].tolist() == ["0012", "2021_03_05", "1e3", "1e3", "1e3", "1e3"]
    assert labels["unit_id"].tolist() == [12, -3, 0, 1, 4, 2**63 - 1]
    assert labels["type"].tolist() == ['PV; fast "spiking"', "PV, regular", "3", "3", "3.50", "two\u2028lines"]
    assert labels.attrs["n_unlabelled"] == 2


@pytest.mark.parametrize("unit_id", ["1.0", "1e3", "007", "1_000", "+1", "0x1F", "\u0663", "-0", "", "nan", "9" * 5000])
def test_unit_ids_that_are_not_plain_integers(tmp_path, unit_id: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"data_key,unit_id,type\na,5,ON\na,{unit_id},OFF\n", encoding="utf-8")
    said = "it must be an integer in plain digits, such as 7, without decimals, exponent or leading zeros."
    if unit_id.startswith("9"):
        said = "unit ids are at most 2**63 - 1."
    with pytest.raises(SettingsError, match=rf"labels\.csv:3: unit_id is .*; {re.escape(said)}"):
        read_type_labels(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "data_key,unit_id,type\na,1,PV, fast spiking\na,2,SST\n",
            "labels.csv:2: there are 4 fields, but the first line names 3 columns; 'fast spiking' is left over. Put a "
            "value that contains a comma into double quotes, or separate the fields with semicolon or tab.",
        ),
        (
            "data_key,unit_id,depth_mm,type\na,1,,ON\na,4,0,31,OFF\n",
            "labels.csv:3: there are 5 fields, but the first line names 4 columns; 'OFF' is left over.",
        ),
        (
            "data_key\tunit_id\ttype\na\t1\tPV\t\tx\n",
            "labels.csv:2: there are 5 fields, but the first line names 3 columns; 'x' is left over. Put a value that "
            "contains a tab into double quotes, or separate the fields with comma or semicolon.",
        ),
        (
            "data_key,unit_id,type,type\na,1,ON,OFF\n",
            "labels.csv:1: the column 'type' appears twice. Rename the one that does not count.",
        ),
        (
            'data_key,unit_id,type\na,1,"ON\na,2,OFF\n',
            "labels.csv:3: this is not a line of a CSV file (unexpected end of data). A value in double quotes ends "
            "with one, and a quote inside it is written twice.",
        ),
    ],
)
def test_lines_that_would_be_read_as_something_else(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(SettingsError, match=re.escape(message)):
        read_type_labels(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"labels\.csv:1: there is no column 'data_key'\. The first line must name the columns data_key, unit_id"),
        (
            "data_key,unit,type\n",
            r"labels\.csv:1: there is no column 'unit_id'\. Did you mean 'unit'\? The first line must name the columns "
            r"data_key, unit_id, type; it names data_key, unit, type\.",
        ),
        (
            "data_key,unit_id,type\na,x,ON\n",
            r"labels\.csv:2: unit_id is 'x'; it must be an integer in plain digits, such",
        ),
        ("data_key,unit_id,type\n,1,ON\n", r"labels\.csv:2: the data_key is empty\."),
        (
            "data_key,unit_id,type\na,1,ON\na, 1,OFF\n",
            r"labels\.csv:3: unit 1 of session 'a' appears already in line 2\.",
        ),
        ("data_key,unit_id,type\na,1\n", r"no neuron of .*labels\.csv has a known type \(1 lines without one\)\."),
        (
            "data_key,unit_id,type\n" + "a,x,ON\n" * 12,
            r"labels\.csv has 12 mistakes:\n.*labels\.csv:2: (.|\n)*labels\.csv:11: .*\n\.\.\. and 2 more\.",
        ),
    ],
)
def test_labels_with_mistakes(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_type_labels(path)


def test_labels_that_are_no_text(tmp_path) -> None:
    with pytest.raises(SettingsError, match=r"the labels .*none\.csv cannot be read: No such file or directory\."):
        read_type_labels(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match=r"binary\.csv are not text in UTF-8\. Save the file as CSV in UTF-8\."):
        read_type_labels(tmp_path / "binary.csv")


def test_neurons_that_no_model_has() -> None:
    labels = pd.DataFrame({"data_key": ["1-1-1", "1-1-1", "1-1-2"], "unit_id": [3, 8, 1], "type": ["a", "b", "a"]})
    assert list(unknown_neurons(labels, {"1-1-1": {1, 2, 3}})) == [
        "no model has 1 of the 2 labelled units of session '1-1-1': 8. Its unit ids go from 1 to 3.",
        "no model has the session '1-1-2' (1 labels). Did you mean '1-1-1'? Allowed: 1-1-1.",
    ]


def test_neurons_without_a_cluster_are_the_last_row_and_no_type_s_partner() -> None:
    found = confusion_matrix([-1, -1, -1, 0, 1, 1], ["a", "a", "a", "a", "b", "b"], no_cluster=-1)
    assert found.clusters == (0, 1, -1)
    np.testing.assert_array_equal(found.counts, [[1, 0], [0, 2], [3, 0]])
    assert found.accuracy == 0.5


def test_neurons_without_a_cluster_are_no_hits_of_a_type_without_one() -> None:
    found = confusion_matrix([0, 0, 1, 1, -1, -1], ["a", "a", "b", "b", "c", "c"], no_cluster=-1)
    assert found.clusters == (0, 1, -1)
    np.testing.assert_array_equal(np.diagonal(found.counts), [2, 2, 2])
    assert found.n_matched == 2
    assert found.accuracy == pytest.approx(4 / 6)
