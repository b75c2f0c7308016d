"""Known cell types from a CSV file: one line per neuron with ``data_key``, ``unit_id`` and ``type``."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from december_plugin.errors import SettingsError, did_you_mean

COLUMNS = ("data_key", "unit_id", "type")
UNKNOWN = ("", "-1", "nan", "none", "null", "na", "n/a", "unknown")  # in upper or lower case
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
# Only plain integers: 007, 1_000 and 1e3 are numbers to some readers and names to others.
PLAIN_INTEGER = re.compile(r"0|-?[1-9][0-9]*", re.ASCII)
WHOLE_WITH_DECIMALS = re.compile(r"(-?[0-9]+)\.0+", re.ASCII)
INT64_DIGITS = 19
MOST_MISTAKES = 10


def read_type_labels(path: str | Path) -> pd.DataFrame:
    """Read and check a file of labels.

    Parameters
    ----------
    path
        A CSV file (commas, semicolons or tabs) whose first line names the columns ``data_key``, ``unit_id`` and
        ``type``, in any order; other columns are ignored. A value that contains the delimiter is in double quotes.
        Neurons whose type is empty, -1, NaN, none, null, NA or unknown are left out: most neurons may have none. Types
        are text; ``3.0``, which data frames with missing entries make of 3, becomes ``3``.

    Returns
    -------
    pandas.DataFrame
        ``data_key`` (str), ``unit_id`` (int64) and ``type`` (str) of the labelled neurons. ``attrs["n_unlabelled"]`` is
        the number of lines without a type.

    Raises
    ------
    SettingsError
        If the file cannot be read, a column is missing or appears twice, a line has more fields than the first one, a
        unit id is not an integer in plain digits, a neuron appears twice, or no neuron has a type. The message lists
        the first ten mistakes, each with its line.
    """
    path = Path(path)
    rows, mistakes, n_unlabelled = [], [], 0
    seen: dict[tuple[str, int], int] = {}
    for line, values, surplus in _lines(path, _read_text(path)):
        problem = surplus or _problem(values, seen, line)
        if problem:
            mistakes.append(f"{path}:{line}: {problem}")
            continue
        name = _type_name(values["type"])
        if name.lower() in UNKNOWN:
            n_unlabelled += 1
        else:
            rows.append((values["data_key"], int(values["unit_id"]), name))
    if mistakes:
        raise SettingsError("\n".join(_first(mistakes, path)))
    if not rows:
        raise SettingsError(f"no neuron of {path} has a known type ({n_unlabelled} lines without one).")
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"unit_id": "int64"})
    frame.attrs["n_unlabelled"] = n_unlabelled
    return frame


def by_session(labels: pd.DataFrame) -> dict[str, tuple[list[int], list[str]]]:
    """Return labels as ``KnownTypes.add_entry`` takes them: data key to unit ids and types."""
    return {
        str(data_key): (group["unit_id"].tolist(), group["type"].tolist())
        for data_key, group in labels.groupby("data_key", sort=True)
    }


def unknown_neurons(labels: pd.DataFrame, known: dict[str, set[int]]) -> Iterator[str]:
    """Say which labelled neurons are not among the known ones.

    Parameters
    ----------
    labels
        As :func:`read_type_labels` returns them.
    known
        Data key to unit ids of the neurons that models have been fitted to.

    Yields
    ------
    str
        One sentence for each session that is unknown or has unknown units.
    """
    for data_key, group in labels.groupby("data_key", sort=True):
        if data_key not in known:
            yield f"no model has the session {data_key!r} ({len(group)} labels). {did_you_mean(str(data_key), known)}"
            continue
        missing = sorted(set(group["unit_id"].tolist()) - known[str(data_key)])
        if missing:
            units = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
            yield (
                f"no model has {len(missing)} of the {len(group)} labelled units of session {data_key!r}: {units}. "
                f"Its unit ids go from {min(known[str(data_key)])} to {max(known[str(data_key)])}."
            )


def _read_text(path: Path) -> str:
    try:
        # Line ends as they are in the file: the CSV reader distinguishes those inside quotes from the others.
        with path.open(encoding="utf-8-sig", newline="") as file:
            return file.read()
    except OSError as error:
        raise SettingsError(f"the labels {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise SettingsError(f"the labels {path} are not text in UTF-8. Save the file as CSV in UTF-8.") from None


def _lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, str], str | None]]:
    """Yield each line's number, its values of the needed columns, and what is wrong with its number of fields."""
    delimiter = _delimiter(text)
    reader = _reader(text, delimiter)
    try:
        names = [name.strip() for name in next(reader, [])]
        _check_columns(path, names)
        positions = {name: names.index(name) for name in COLUMNS}
        for row in reader:
            if row:
                fields = [value.strip() for value in row] + [""] * (len(names) - len(row))
                values = {name: fields[position] for name, position in positions.items()}
                yield reader.line_num, values, _surplus(fields, len(names), delimiter)
    except csv.Error as error:
        raise SettingsError(
            f"{path}:{reader.line_num}: this is not a line of a CSV file ({error}). A value in double quotes ends with "
            "one, and a quote inside it is written twice."
        ) from None


def _reader(text: str, delimiter: str) -> Any:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)


def _delimiter(text: str) -> str:
    """Return the delimiter with which the first line names the columns; if there is none, the most frequent one."""
    header = text.splitlines()[0] if text else ""

    def likely(delimiter: str) -> tuple[bool, int]:
        names = {name.strip().strip('"') for name in header.split(delimiter)}
        return names.issuperset(COLUMNS), header.count(delimiter)

    return max(DELIMITERS, key=likely)


def _surplus(fields: list[str], n_columns: int, delimiter: str) -> str | None:
    left_over = [value for value in fields[n_columns:] if value]
    if not left_over:
        return None
    others = " or ".join(name for other, name in DELIMITERS.items() if other != delimiter)
    return (
        f"there are {len(fields)} fields, but the first line names {n_columns} columns; {left_over[0]!r} is left over. "
        f"Put a value that contains a {DELIMITERS[delimiter]} into double quotes, or separate the fields with {others}."
    )


def _check_columns(path: Path, names: list[str]) -> None:
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        close = did_you_mean(missing[0], names).partition("Allowed:")[0] if names else ""
        raise SettingsError(
            f"{path}:1: there is no column {missing[0]!r}. {close}The first line must name the columns "
            f"{', '.join(COLUMNS)}; it names {', '.join(names) or 'nothing'}."
        )
    doubled = [name for name in COLUMNS if names.count(name) > 1]
    if doubled:
        raise SettingsError(f"{path}:1: the column {doubled[0]!r} appears twice. Rename the one that does not count.")


def _problem(values: dict[str, str], seen: dict[tuple[str, int], int], line: int) -> str | None:
    if not values["data_key"]:
        return "the data_key is empty."
    text = values["unit_id"]
    if not PLAIN_INTEGER.fullmatch(text):
        return (
            f"unit_id is {text[:40]!r}; it must be an integer in plain digits, such as 7, without decimals, exponent "
            "or leading zeros."
        )
    if len(text.lstrip("-")) > INT64_DIGITS or not -(2**63) <= int(text) < 2**63:
        return f"unit_id is {text[:40]}; unit ids are at most 2**63 - 1."
    unit_id = int(text)
    first = seen.setdefault((values["data_key"], unit_id), line)
    if first != line:
        return f"unit {unit_id} of session {values['data_key']!r} appears already in line {first}."
    return None


def _type_name(text: str) -> str:
    whole = WHOLE_WITH_DECIMALS.fullmatch(text)
    return whole[1] if whole else text


def _first(mistakes: list[str], path: Path) -> Iterator[str]:
    if len(mistakes) > 1:
        yield f"{path} has {len(mistakes)} mistakes:"
    yield from mistakes[:MOST_MISTAKES]
    if len(mistakes) > MOST_MISTAKES:
        yield f"... and {len(mistakes) - MOST_MISTAKES} more."
