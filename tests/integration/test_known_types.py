"""Labels from files, and confusion of stored assignments with them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from december_plugin.cli import main
from december_plugin.errors import SettingsError
from december_plugin.results.confusion import confusion_frame
from december_plugin.results.consensus import consensus_frame
from helpers import planted_lab
from helpers.lab_tables import open_lab, truth

SEEDS = [1, 2, 3]
LABELLED = 9  # neurons of each session that have a type; most have none


@pytest.fixture(scope="module")
def lab(new_schema_name: Any) -> Any:
    lab = open_lab(new_schema_name())
    lab.train("december", SEEDS)
    lab.tables.ClusterAssignment.populate()
    types = {key: (units[:LABELLED], codes[:LABELLED]) for key, (units, codes) in truth().items()}
    lab.tables.KnownTypes().add_entry("few", types, source="planted_lab", version="2")
    return lab


def expected(seeds: list[int]) -> Counter:
    """Count (planted cluster, type) of the labelled neurons over seeds; planted clusters are not renumbered."""
    return Counter(
        (int(label), str(kind))
        for seed in seeds
        for key in planted_lab.SESSIONS
        for label, kind in zip(
            planted_lab.planted_labels(seed, key)[:LABELLED], planted_lab.types(key)[:LABELLED], strict=True
        )
    )


def test_confusion_of_one_seed(lab: Any) -> None:
    frame = confusion_frame(lab.tables, "seed = 2")
    counts = expected([2])
    assert list(frame.columns) == ["0", "1", "2"]
    np.testing.assert_array_equal(frame, [[counts[i, str(j)] for j in range(3)] for i in range(3)])
    n_neurons = sum(planted_lab.SESSIONS.values())
    assert frame.attrs["n_unlabelled"] == n_neurons - 2 * LABELLED
    assert (frame.attrs["n_seeds"], frame.attrs["n_unassigned"], frame.attrs["types_name"]) == (1, 0, "few")
    per_type = frame.attrs["per_type"]
    assert per_type["n_neurons"].tolist() == [6, 6, 6]
    assert per_type.loc["1", "recall"] == counts[1, "1"] / 6
    assert per_type.loc["1", "precision"] == counts[1, "1"] / sum(counts[1, str(j)] for j in range(3))


def test_confusion_over_seeds_whose_clusters_are_numbered_otherwise(lab: Any) -> None:
    frame = confusion_frame(lab.tables, True, types_name="few")
    counts = expected(SEEDS)
    # Each seed moves other neurons, so the vote is the truth: every neuron once, and all on the diagonal.
    assert sum(counts.values()) == 3 * 2 * LABELLED
    np.testing.assert_array_equal(frame, 6 * np.eye(3))
    assert (frame.attrs["n_seeds"], frame.index.name) == (3, "cluster")
    assert frame.attrs["reference_seed"] in SEEDS
    assert (frame.attrs["accuracy"], frame.attrs["n_unassigned"]) == (1.0, 0)
    consensus = consensus_frame(lab.tables, True).set_index(["data_key", "unit_id"])["cluster"]
    for data_key in planted_lab.SESSIONS:
        unit = int(planted_lab.unit_ids(data_key)[0])
        assert consensus[data_key, unit] == frame.index[int(planted_lab.types(data_key)[0])]


def test_what_cannot_be_answered(lab: Any) -> None:
    with pytest.raises(SettingsError, match=r"the restriction leaves 0 assignments of 0 configurations; it must leave"):
        confusion_frame(lab.tables, "seed = 77")
    with pytest.raises(SettingsError, match=r"there are no known types named 'fw'\. Known: few\."):
        confusion_frame(lab.tables, "seed = 1", types_name="fw")
    types = lab.tables.KnownTypes()
    types.add_entry("elsewhere", {"third": ([1], ["a"])})
    types.add_entry("others", {"first": ([100_000], ["a"])})
    try:
        with pytest.raises(
            SettingsError, match=r"there are several sets of known types: elsewhere, few, others\. Name one of"
        ):
            confusion_frame(lab.tables, "seed = 1")
        with pytest.raises(SettingsError, match=r"'elsewhere' have no session in common with this assignment, whose"):
            confusion_frame(lab.tables, "seed = 1", types_name="elsewhere")
        with pytest.raises(SettingsError, match=r"the known types 'others' have no neuron in common with this assig"):
            confusion_frame(lab.tables, "seed = 1", types_name="others")
    finally:
        (lab.tables.KnownTypes & "types_name in ('elsewhere', 'others')").delete()


def test_import_and_list(lab: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema = lab.tables.schema.database
    rows = [
        ("first", unit, kind) for unit, kind in zip(planted_lab.unit_ids("first"), ["ON", "OFF", "ON"], strict=False)
    ]
    rows += [("first", 8, "ON"), ("frst", 1, "ON"), ("second", 7, "")]
    path = tmp_path / "labels.csv"
    path.write_text("data_key,unit_id,type\n" + "".join(f"{key},{unit},{kind}\n" for key, unit, kind in rows))
    words = ["types", "import", str(path), "--name", "mine", "--source", "me", "--version", "3", "--schema", schema]
    assert main([*words, "--dry-run"]) == 0
    said = [
        "5 labelled neurons of 2 sessions, 1 without a type; 2 types: ON (4), OFF (1)",
        "Note: no model has 1 of the 4 labelled units of session 'first': 8. Its unit ids go from 7 to 124.",
        "Note: no model has the session 'frst' (1 labels). Did you mean 'first'? Allowed: first, second.",
        "Models have 3 of the 5 labelled neurons.",
    ]
    assert capsys.readouterr().out.splitlines() == [*said, "Nothing was written."]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("Stored as 'mine'. Next: `december worker`")
    assert main(["types", "list", "--schema", schema]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "few (planted_lab, version 2)",
        "  18 neurons of 2 sessions; types 0, 1, 2",
        "mine (me, version 3)",
        "  5 neurons of 2 sessions; types ON, OFF",
    ]
    assert lab.tables.KnownTypes().frame("mine").to_dict("list")["type"] == ["ON", "OFF", "ON", "ON", "ON"]
    (lab.tables.KnownTypes & {"types_name": "mine"}).delete()


def test_labels_of_other_recordings_only(lab: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("data_key,unit_id,type\nthird,1,ON\n")
    schema = lab.tables.schema.database
    assert main(["types", "import", str(path), "--name", "mine", "--schema", schema]) == 1
    error = capsys.readouterr().err
    assert "no model has any of these neurons, so nothing was stored:\nno model has the session 'third'" in error
    assert len(lab.tables.KnownTypes & {"types_name": "mine"}) == 0
