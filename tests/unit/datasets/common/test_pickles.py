"""Pickles of recordings: plain data are read as pickle reads them, everything else is refused before it runs."""

from __future__ import annotations

import os
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from december_plugin.datasets.common.pickles import array_of, read_plain_pickle
from december_plugin.errors import RecordingError


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_are_read(tmp_path: Path, protocol: int) -> None:
    content = {
        "floats": np.linspace(0, 1, 6).reshape(2, 3),
        "columns_first": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "scalar": np.float64(37.0),
        "nothing": np.zeros((0, 3), dtype=np.uint8),
        "ragged": np.array([[1], [2, 3]], dtype=object),
        "nested": OrderedDict(seeds=[2022, 2023], names={"a", "b"}, trials={2022: (0, 1)}),
    }
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(content, protocol))
    read = read_plain_pickle(tmp_path / "plain.pkl")
    assert read.keys() == content.keys()
    for name in ("floats", "columns_first", "scalar", "nothing", "ragged"):
        np.testing.assert_array_equal(read[name], content[name])
        assert read[name].dtype == content[name].dtype
    assert read["nested"] == content["nested"]


class Shell:
    def __init__(self, command: str):
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


def test_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, trace = tmp_path / "evil.pkl", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"train": [Shell(f"touch {trace}")]}))
    message = (
        f"{path} is a pickle that names posix.system; a recording needs only NumPy arrays, and opening such a "
        "file would run code. If you know where it comes from, set DECEMBER_TRUST_PICKLES=1 in the environment."
    )
    for value in (None, "0", "no"):
        if value is not None:
            monkeypatch.setenv("DECEMBER_TRUST_PICKLES", value)
        with pytest.raises(RecordingError, match=re.escape(message)):
            read_plain_pickle(path)
    assert not trace.exists()


def test_numpys_other_functions_are_no_data(tmp_path: Path) -> None:
    # numpy.load would open another pickle.
    (tmp_path / "load.pkl").write_bytes(b"cnumpy\nload\n(S'other'\ntR.")
    with pytest.raises(RecordingError, match=r"is a pickle that names numpy\.load;"):
        read_plain_pickle(tmp_path / "load.pkl")


def test_every_truncation_is_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.pkl"
    whole = pickle.dumps({"a": np.arange(3), "b": ["text", 1.5]})
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(RecordingError, match=r"cut\.pkl (is not a complete pickle|is a pickle that names)"):
            read_plain_pickle(path)


def test_other_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"no\.pkl does not exist\. See docs/recordings\.md"):
        read_plain_pickle(tmp_path / "no.pkl")
    with pytest.raises(RecordingError, match="cannot be read: Is a directory"):
        read_plain_pickle(tmp_path)
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(RecordingError, match=r"list\.pkl contains a list; a dictionary of arrays is expected"):
        read_plain_pickle(tmp_path / "list.pkl")


def test_an_entry_must_be_an_array_of_numbers() -> None:
    content = {"a": np.zeros(3), "b": np.array(["x"]), "c": [1, 2]}
    assert array_of(content, "a", Path("p")) is content["a"]
    with pytest.raises(RecordingError, match=r"p has no entry 'd'; it has a, b, c\."):
        array_of(content, "d", Path("p"))
    with pytest.raises(RecordingError, match=r"the entry 'b' of p is <U1; an array of numbers is expected\."):
        array_of(content, "b", Path("p"))
    with pytest.raises(RecordingError, match=r"the entry 'c' of p is list; an array of numbers is expected\."):
        array_of(content, "c", Path("p"))
