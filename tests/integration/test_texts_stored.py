"""Hostile texts in every text column that a user fills: stored as they are, or refused in words before anything is."""

from __future__ import annotations

import datajoint as dj
import pytest

from december_plugin.cli import main
from december_plugin.errors import SettingsError
from december_plugin.results import assignments
from helpers.lab_tables import open_lab

FINE = {
    "double quotes": 'the "big" ones',
    "quotes": "it's ''quoted''",
    "backslash": "back\\slash \\",
    "per cent": "100 % %s %(x)s",
    "braces": "{strength} {",
    "emoji": "mouse 🐭 細胞",
    "accents": "Müller, Ångström",
    "sql": '"); DROP TABLE clustering; --',
    "markup": "<script>alert(1)</script> $\\frac$",
}
REFUSED = {
    "5,000 characters": "x" * 5000,
    "escape": "a\x1b]0;title\x07",
    "line break": "a\nb",
    "zero": "a\x00b",
    "surrogate": "a\ud800b",
}


@pytest.fixture(scope="module")
def lab(new_schema_name):
    lab = open_lab(new_schema_name())
    lab.train("december", [1, 2])
    for table in lab.tables.computed:
        table.populate()
    return lab


def neurons(number):
    return {"first": ([0, 1], [f"type {number}", "b"])}


@pytest.mark.parametrize("text", FINE.values(), ids=FINE)
def test_names_descriptions_and_comments_are_stored_as_they_are(lab, text, capsys):
    tables = lab.tables
    key = tables.KnownTypes().add_entry(text, neurons(1), source=text, version=text)
    assert (tables.KnownTypes & key).fetch1("types_source", "types_version") == (text, text)
    assert tables.KnownTypes().frame(text)["type"].tolist() == ["type 1", "b"]
    assert len(tables.KnownTypes & [key]) == len(tables.KnownTypes & dj.AndList([key])) == 1
    assert len(tables.KnownTypes - key) == len(tables.KnownTypes()) - 1
    assert len(tables.KnownTypes & (tables.KnownTypes & key).fetch("KEY")) == 1
    clustering = tables.Clustering().add_entry("kmeans", 2, description=text, seed=len(text), skip_duplicates=True)
    surrogate = tables.Surrogate().add_entry(text, seed=sum(map(ord, text)), n_draws=1)
    assert (tables.Clustering & clustering).fetch1("description") in FINE.values()
    assert (tables.Surrogate & surrogate).fetch1("surrogate_name") == text
    assert main(["types", "list", "--schema", tables.schema.database]) == 0
    assert text in capsys.readouterr().out
    (tables.KnownTypes & key).delete()
    assert not tables.KnownTypes & key
    (tables.Surrogate & surrogate).delete()


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_no_column_holds_is_refused_in_words(lab, text):
    tables = lab.tables
    before = [len(table()) for table in (tables.KnownTypes, tables.Clustering, tables.Surrogate)]
    for enter in (
        lambda: tables.KnownTypes().add_entry(text, neurons(1)),
        lambda: tables.KnownTypes().add_entry("n", neurons(1), source=text),
        lambda: tables.KnownTypes().add_entry("n", neurons(1), version=text),
        lambda: tables.Clustering().add_entry("kmeans", 2, description=text, n_init=3),
        lambda: tables.Surrogate().add_entry(text, seed=9),
    ):
        with pytest.raises(SettingsError, match=r"has 5,000 characters|a control character"):
            enter()
    assert [len(table()) for table in (tables.KnownTypes, tables.Clustering, tables.Surrogate)] == before


def test_names_that_differ_in_case_or_accents_are_one(lab):
    tables = lab.tables
    tables.KnownTypes().add_entry("Müller 1", neurons(1))
    with pytest.raises(SettingsError, match=r"^known types named 'muller 1' exist already"):
        tables.KnownTypes().add_entry("muller 1", neurons(2))
    (tables.KnownTypes & {"types_name": "Müller 1"}).delete()


@pytest.mark.parametrize("text", [*FINE.values(), *REFUSED.values()], ids=[*FINE, *REFUSED])
def test_questions_with_any_text_find_nothing(lab, text):
    if text == REFUSED["surrogate"]:
        pytest.skip("no text of a query can be sent to a server with half of a character pair in it")
    with pytest.raises(SettingsError, match=r"^no assignment has unit 1 of session "):
        assignments.neuron_clusters(lab.tables, data_key=text, unit_id=1)
    assert len(lab.tables.ClusterAssignment.Session & {"data_key": text}) == 0
