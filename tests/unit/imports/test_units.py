"""Tables of units."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from december_plugin.errors import EmbeddingError
from december_plugin.imports import read_units
from december_plugin.imports.units import units_of_mapping

FRAME = pd.DataFrame({"session": ["a", "a", "b"], "unit_id": [7, 8, 7], "cc_abs": [0.5, np.nan, -0.1]})


def test_columns_that_are_named() -> None:
    frame = FRAME.rename(columns={"session": "animal", "unit_id": "cell"}).assign(field=[1, 1, 2])
    units = read_units(frame, session=["animal", "field"], unit_id="cell", test_correlation="cc_abs")
    assert units.data_keys.tolist() == ["a-1", "a-1", "b-2"]
    assert units.unit_ids.tolist() == [7, 8, 7]
    np.testing.assert_array_equal(units.test_correlations, [0.5, np.nan, -0.1])


def test_the_usual_columns() -> None:
    assert read_units(FRAME).data_keys.tolist() == ["a", "a", "b"]
    assert read_units(FRAME.assign(scan=[1, 2, 3])).data_keys.tolist() == ["a-1", "a-2", "b-3"]
    assert read_units(FRAME.assign(scan=1, data_key="z", unit_id=[1, 2, 3])).data_keys.tolist() == ["z"] * 3
    # Numbers that a gap in another row has made into fractions.
    assert read_units(FRAME.assign(session=[4.0, 4.0, 5.0])).data_keys.tolist() == ["4", "4", "5"]


def test_what_is_no_table_of_units(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingError, match=r"units.txt is of an unknown kind; tables of units are .csv or .parquet"):
        read_units(tmp_path / "units.txt")
    with pytest.raises(EmbeddingError, match=r"there is no file .*units.csv"):
        read_units(tmp_path / "units.csv")
    (tmp_path / "units.parquet").write_text("session,unit_id")
    with pytest.raises(EmbeddingError, match=r"units.parquet cannot be read as a table: "):
        read_units(tmp_path / "units.parquet")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(EmbeddingError, match=r"empty.csv cannot be read as a table: "):
        read_units(tmp_path / "empty.csv")
    with pytest.raises(EmbeddingError, match=r"has no column that names the session .*Say which it is with session"):
        read_units(FRAME.drop(columns="session"))
    with pytest.raises(EmbeddingError, match=r"has no column 'unit_id'. Did you mean 'unit_ids'\?"):
        read_units(FRAME.rename(columns={"unit_id": "unit_ids"}))
    with pytest.raises(EmbeddingError, match=r"unit 7 of session 'a' occurs more than once"):
        read_units(FRAME.assign(session="a"))
    with pytest.raises(
        EmbeddingError, match=r"the column 'unit_id' of the table of units has values that are not whole"
    ):
        read_units(FRAME.assign(unit_id=[1, 2.5, 3]))
    with pytest.raises(EmbeddingError, match=r"the column 'session' of the table of units has rows without a session"):
        read_units(FRAME.assign(session=["a", None, "b"]))
    with pytest.raises(
        EmbeddingError, match=r"two sessions are named 'B' and 'b', which a database takes for the same"
    ):
        read_units(FRAME.assign(session=["b", "b", "B"]))
    with pytest.raises(EmbeddingError, match=r"the column 'n' of .* has values up to 3; correlations are from -1 to 1"):
        read_units(FRAME.assign(n=[1, 2, 3]), test_correlation="n")
    with pytest.raises(EmbeddingError, match=r"the column 'session' of the table of units does not hold numbers"):
        read_units(FRAME, test_correlation="session")


def test_a_mapping_has_whole_numbers() -> None:
    assert units_of_mapping({"a": [7.0, 8.0], "b": [7]}).unit_ids.dtype == np.int64
    for wrong in ([0.5, 1.5], [1, np.nan], ["x", "y"]):
        with pytest.raises(EmbeddingError, match="the unit ids have values that are not whole numbers"):
            units_of_mapping({"a": wrong})
