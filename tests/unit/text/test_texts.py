"""Texts on their way into the database, onto a terminal and into a spreadsheet."""

from __future__ import annotations

import io
import sys

import numpy as np
import pandas as pd
import pytest

from december_plugin.cli import main
from december_plugin.datasets import static_loaders
from december_plugin.errors import RecordingError, SettingsError
from december_plugin.simulate import write_recording
from december_plugin.sweeps.parse import parse_sweep
from december_plugin.text import terminal
from december_plugin.text.csv_files import write_csv
from december_plugin.text.stored_text import check_session_names, checked_text, database_form
from december_plugin.text.terminal import TerminalStream, printable, safe_output

# --- what a column takes


@pytest.mark.parametrize(
    "text", ["a", 'the "big" ones', "it's 100 % \\ {x}", "Müller 🐭", "細胞", "$\\frac$", "; DROP TABLE x; --", "<b>&"]
)
def test_texts_that_are_taken_as_they_are(text):
    assert checked_text("the name", text, 64, empty=False) == text


CONTROL = (
    ", a control character, line break or half of a character pair; write it on one line, in characters that can be "
    "printed."
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (3, "the name is 3; it must be a string of 1 to 64 characters."),
        (None, "the name is None; it must be a string of 1 to 64 characters."),
        ("", "the name is ''; it must be a string of 1 to 64 characters."),
        ("  ", "the name is '  '; it must be a string of 1 to 64 characters."),
        ("x" * 5000, f"the name has 5,000 characters, '{'x' * 20}'...; at most 64 are allowed."),
        ("a\x1b]0;title\x07", "the name holds '\\x1b'" + CONTROL),
        ("a\nb", "the name holds '\\n'" + CONTROL),
        ("a\x00b", "the name holds '\\x00'" + CONTROL),
        ("a\x9bb", "the name holds '\\x9b'" + CONTROL),
        ("a\u2028b", "the name holds '\\u2028'" + CONTROL),
        ("a\ud800b", "the name holds '\\ud800'" + CONTROL),
    ],
)
def test_texts_that_are_refused(text, message):
    with pytest.raises(SettingsError) as caught:
        checked_text("the name", text, 64, empty=False)
    assert str(caught.value) == message


def test_empty_texts_where_they_may_be():
    assert checked_text("the source", "", 8) == ""
    with pytest.raises(SettingsError, match=r"^the source is 5; it must be a string of at most 8 characters\.$"):
        checked_text("the source", 5, 8)


# --- names of sessions


@pytest.mark.parametrize(
    ("one", "other"),
    [("left", "Left"), ("Muller", "Müller"), ("a", "a "), ("mouse🐭", "mouse🐱"), ("Straße", "STRASSE"), ("ﬁ", "fi")],
)
def test_names_that_a_database_may_take_for_the_same(one, other):
    assert database_form(one) == database_form(other)
    with pytest.raises(RecordingError) as caught:
        check_session_names([one, other])
    assert str(caught.value) == (
        f"two sessions are named {one!r} and {other!r}, which a database takes for the same: it compares names without "
        "case, accents, emoji and blanks at the end. Rename one of them."
    )


def test_names_that_differ():
    check_session_names(["1-1-1", "1-1-2", "11-1", 'left "V1"', "mouse🐭", "mouse"])


def test_names_that_no_column_holds():
    with pytest.raises(RecordingError, match=r"^the name of a session has 129 characters, 'aaaaaaaaaaaaaaaaaaaa'"):
        check_session_names(["a" * 129])


@pytest.fixture(scope="module")
def alike(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alike")
    sizes = {"n_neurons": 3, "n_train": 4, "n_validation": 2, "n_test": 2, "n_repeats": 2, "image_shape": (8, 8)}
    return [
        str(write_recording(folder / name, feature_size=5, n_features=4, seed=seed, **sizes))
        for seed, name in enumerate(("mouse1_left", "Mouse1_Left"), 1)
    ]


def test_the_loader_refuses_sessions_whose_names_are_alike(alike):
    with pytest.raises(RecordingError, match="which a database takes for the same"):
        static_loaders(alike, 2)


def test_a_sweep_refuses_sessions_whose_names_are_alike(alike):
    content = {
        "seeds": [1],
        "datasets": [{"fn": "december_plugin.datasets.static_loaders", "config": {"paths": alike, "batch_size": 2}}],
        "models": [{"fn": "december_plugin.models.stacked_core_gaussian_readout"}],
        "trainers": [{"fn": "december_plugin.trainers.baseline_trainer"}],
    }
    with pytest.raises(
        SettingsError, match=r"datasets, entry 1: two sessions are named 'mouse1_left' and 'Mouse1_Left'"
    ):
        parse_sweep(content)


def test_a_comment_with_control_characters_is_a_mistake():
    content = {
        "seeds": [1],
        "datasets": [{"fn": "december_plugin.datasets.static_loaders", "config": {"paths": ["a"], "batch_size": 2}}],
        "models": [{"fn": "december_plugin.models.stacked_core_gaussian_readout"}],
        "trainers": [{"fn": "december_plugin.trainers.baseline_trainer", "comment": "a\x1b[2Jb"}],
    }
    with pytest.raises(SettingsError, match=r"trainers, entry 1: the comment holds '\\x1b', a control character"):
        parse_sweep(content)


# --- the terminal


def test_what_a_terminal_would_obey_is_left_out():
    hostile = "a\x1b]0;pwned\x07b\x1b]52;c;cHduZWQ=\x1b\\c\x1b[31md\x1b[2Je\x9b31mf\rg\x08h\x7f\n\ti"
    assert printable(hostile) == "a]0;pwnedb]52;c;cHduZWQ=\\cde31mfgh\n\ti"


def test_printing_is_safe_while_a_command_runs(monkeypatch):
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with safe_output():
        print("a\x1b]0;title\x07b\rc")
        print("\r50 %\x1b[1m", end="", file=sys.stderr)
        assert isinstance(sys.stdout, TerminalStream)
        with safe_output():
            assert sys.stdout.raw is out
    assert (out.getvalue(), err.getvalue()) == ("a]0;titlebc\n", "\r50 %")
    assert (sys.stdout, sys.stderr) == (out, err)


def test_an_error_with_escapes_in_it_is_printed_without_them(capsys):
    assert main(["register", "no\x1b]0;title\x07such.yaml"]) == 1
    printed = capsys.readouterr().err
    assert "\x1b" not in printed
    assert "no]0;titlesuch.yaml" in printed


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"+-0.1 ## ... Muller ? caf? -> 3 x 4"),
        ("latin-1", "±0.1 ## ... Müller ? caf? -> 3 × 4".encode("latin-1")),
        ("cp1252", "±0.1 ## … Müller ? caf? -> 3 × 4".encode("cp1252")),
        ("utf-8", "±0.1 ██ … Müller 細 caf☃ → 3 × 4".encode()),
    ],
)
def test_a_terminal_that_lacks_characters_gets_others(monkeypatch, encoding, expected):
    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, encoding=encoding, write_through=True))
    with safe_output():
        print("±0.1 ██ … Müller 細 caf☃ → 3 × 4", end="")
        sys.stdout.flush()
    assert file.getvalue() == expected


def test_the_replacements_are_ascii():
    assert all(text.isascii() for text in terminal._REPLACEMENTS.values())


# --- spreadsheets


def test_no_text_in_a_csv_file_is_a_formula():
    frame = pd.DataFrame(
        {
            "comment": ["=HYPERLINK(1)", "+1", "-1", "@x", "plain", "", None],
            "value": [-1.0, 2, 3, 4, 5, 6, np.nan],
            "count": np.arange(-3, 4),
        }
    )
    before = frame.copy()
    file = io.StringIO()
    write_csv(frame, file)
    assert file.getvalue() == (
        "comment,value,count\n'=HYPERLINK(1),-1.0,-3\n'+1,2.0,-2\n'-1,3.0,-1\n'@x,4.0,0\nplain,5.0,1\n,6.0,2\n,,3\n"
    )
    pd.testing.assert_frame_equal(frame, before)
