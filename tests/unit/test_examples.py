"""The examples in the docstrings of public names run, and show what they say; those with a database are elsewhere."""

from __future__ import annotations

import doctest

import datajoint as dj
import pytest

from helpers.docstring_examples import examples_without_database, failures_of, skipped_lines


@pytest.fixture(autouse=True)
def _own_folders_and_connection(tmp_path, monkeypatch):
    monkeypatch.delattr(dj.conn, "connection", raising=False)  # of a test that ran before in this process
    monkeypatch.setenv("DECEMBER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DECEMBER_PRETRAINING", str(tmp_path / "pretraining"))


@pytest.mark.slow(12)
@pytest.mark.filterwarnings("ignore")
def test_examples(tmp_path):
    tests = examples_without_database()
    assert len(tests) >= 60
    assert skipped_lines(tests) == []
    said = [failures_of(test, tmp_path / test.name) for test in tests]
    assert not any(said), "".join(said)


def test_a_wrong_example_is_reported(tmp_path):
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert "Expected:\n    3\nGot:\n    2\n" in failures_of(test, tmp_path / "wrong")
