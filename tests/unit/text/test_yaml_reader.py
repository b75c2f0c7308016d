"""YAML as people write it: text stays text, what can be read in two ways is asked about, bombs do not go off."""

from __future__ import annotations

from typing import Any

import pytest

from december_plugin.text.yaml_reader import Reading, decoded, read_yaml


def read(written: str | bytes, *, text: tuple[str, ...] = ("name",)) -> Reading:
    return read_yaml(written, "f.yaml", is_text=lambda path: path[-1] in text)


def said(written: str | bytes) -> list[str]:
    reading = read(written)
    return [reading.source.shown(mistake).splitlines()[0] for mistake in reading.mistakes]


AMBIGUOUS = [
    "no",
    "off",
    "Yes",
    "true",
    "2024-01-01",
    "2024-13-45",
    "010",
    "08",
    "1:30",
    "12",
    "1.50",
    "1e3",
    "0x1F",
    "=",
]


@pytest.mark.parametrize("written", AMBIGUOUS)
def test_text_is_what_was_written(written: str) -> None:
    reading = read(f"name: {written}\n")
    assert (reading.mistakes, reading.content) == ((), {"name": written})


def test_text_that_is_left_out_is_none_and_null_is_asked_about() -> None:
    assert read("name:\n").content == {"name": None}
    assert read("name: ''\n").content == {"name": ""}
    for word in ("null", "~", "NULL"):
        (mistake,) = said(f"name: {word}\n")
        assert mistake == (
            f"f.yaml:1:7: {word} stands for nothing here. Leave it out, or put it in quotes if it is text."
        )


def test_a_value_with_an_anchor_is_text_only_where_text_is_meant() -> None:
    assert read("a: &x 12\nname: *x\nb: {<<: &m {name: no, c: no}}\n").content == {
        "a": 12,
        "name": "12",
        "b": {"name": "no", "c": False},
    }


VALUES = [
    ("a: 1e-3", 0.001),
    ("a: 1_000", 1000),
    ("a: 0", 0),
    ("a: 0.5", 0.5),
    ("a: 0x10", 16),
    ("a: no", False),
    ("a: '010'", "010"),
    ("a: null", None),
    ("a: 12:30:61", "12:30:61"),
]


@pytest.mark.parametrize(("written", "value"), VALUES)
def test_what_can_be_read_in_one_way_is_a_value(written: str, value: Any) -> None:
    assert read(written).content == {"a": value}


WRONG = [
    (
        "a: [1, 010]",
        "1:8: 010 begins with a zero and may be the octal number 8 or 10. Write the number that is meant, without the "
        "zero; put it in quotes if it is text.",
    ),
    (
        "a: 09",
        "1:4: 09 begins with a zero and may be 9. Write the number that is meant, without the zero; put it in quotes "
        "if it is text.",
    ),
    (
        "a: 1:30",
        "1:4: 1:30 is read as the number 90, in base 60. Put it in quotes if it is text, or write the number.",
    ),
    ("a: 2024-01-01", "1:4: 2024-01-01 is read as a date, which no setting is. Put it in quotes if it is text."),
    (
        "a: 2024-13-45",
        "1:4: '2024-13-45' is read as a date and is not one (month must be in 1..12). Put it in quotes if it is text.",
    ),
    ("a: !!timestamp x", "1:4: 'x' is read as a date and is not one. Put it in quotes if it is text."),
    (
        "a: !!int x",
        "1:4: 'x' is read as a number and is not one (invalid literal for int() with base 10: 'x'). Put it in quotes "
        "if it is text.",
    ),
    (
        f"a: {2**63}",
        "1:4: 9223372036854775808 is too large; whole numbers are below 2**63. Put it in quotes if it is text.",
    ),
    ("a: !!set {x, y}", "1:4: a value here is read as a set, which no setting is. Put it in quotes if it is text."),
    ("010: 1", "1:1: the key 8 is a number; keys are text. Put it in quotes if it is a name."),
    ("2024-01-01: 1", "1:1: the key datetime.date(2024, 1, 1) is a date; keys are text. Put it in quotes if it is"),
    ('a: "\\ud800"', "1:4: the text has half of a character (U+D800), which cannot be stored. Remove it."),
    ('name: "a\\e[2J"', "1:7: the text has the control character U+001B. Remove it."),
    (
        "a: 1\nb: \0",
        "2:4: the file f.yaml is not valid YAML: the character U+0000 is not allowed. It looks like UTF-16",
    ),
    ("a: 1\nb: \x07", "2:4: the file f.yaml is not valid YAML: the character U+0007 is not allowed. Remove it."),
    ("a: !!python/object:os.system {}", "1:4: the file f.yaml is not valid YAML: could not determine a constructor"),
    (
        "? [a, b]\n: 1",
        "1:3: the file f.yaml is not valid YAML: found unhashable key (while constructing a mapping that",
    ),
    ("a: 1\n---\nb: 1", "2:1: the file f.yaml is not valid YAML: but found another document (expected a single"),
    ("a: " + "[" * 60 + "]" * 60, "1:1: lists and mappings are nested more than 50 levels deep."),
    ("a: " + "[" * 5000 + "]" * 5000, "1:1: lists and mappings are nested more than 50 levels deep."),
    ("a: &x {b: *x}", "1:4: a value contains itself (an alias, *name, inside of its anchor, &name)."),
]


@pytest.mark.parametrize(("written", "message"), WRONG)
def test_what_is_wrong_is_said_with_its_place(written: str, message: str) -> None:
    (mistake,) = said(written)
    assert mistake.startswith(f"f.yaml:{message}")


def test_aliases_of_aliases_are_refused_before_they_are_written_out() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    (mistake,) = said(bomb)  # written out, it would take years
    assert mistake.startswith("f.yaml:1:1: with its aliases (*name) written out the file has ")
    assert mistake.endswith(" values; 100,000 are allowed. Aliases of aliases multiply: write out what is meant.")
    merged = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{p: *a{n - 1}, q: *a{n - 1}}}\n" for n in range(1, 40))
    (mistake,) = said(merged)
    assert "written out" in mistake


def test_aliases_that_stand_for_a_long_list_are_allowed() -> None:
    units = ", ".join(map(str, range(600)))
    assert read(f"a: &a [{units}]\nb: *a\nc: *a\n").content["c"][-1] == 599


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_editors_write(encoding: str) -> None:
    assert read("name: Größe µ 🐭\n".encode(encoding)).content == {"name": "Größe µ 🐭"}


def test_other_encodings_are_named_with_their_place() -> None:
    assert said("a: 1\nb: Größe\n".encode("latin-1")) == [
        "f.yaml:2:6: the file f.yaml cannot be read: the character here (0xf6) is not UTF-8. Save the file as UTF-8, "
        "which every editor can: it is probably in a regional encoding, such as Latin-1 or Windows-1252."
    ]
    (mistake,) = said("a: 1".encode("utf-16-be"))  # without a mark
    assert "the character U+0000 is not allowed. It looks like UTF-16 without its mark: save it as UTF-8." in mistake
    (mistake,) = said("a: 1".encode("utf-16")[:-1])
    assert "is not UTF-16" in mistake
    assert decoded(b"\xef\xbb\xbfa") == "a"


def test_the_text_of_a_mistake_is_nothing_a_terminal_obeys() -> None:
    reading = read("a: 010 # \x1b[2J\u009b2J\n".replace("\x1b", "\u0085"))
    shown = reading.source.shown(reading.mistakes[0])
    assert not [each for each in shown if each != "\n" and not each.isprintable()]
