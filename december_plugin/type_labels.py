"""Known cell types from a CSV file: one line per neuron with ``data_key``, ``unit_id`` and ``type``."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from december_plugin.errors import SettingsError, did_you_mean

COLUMNS = ("data_key", "unit_id", "type")
UNKNOWN = ("", "-1", "nan", "none", "null", "na", "n/a", "unknown")  # in any case of letters
MOST_MISTAKES = 10


def read_type_labels(path: str | Path) -> pd.DataFrame:
    """Read and check a file of labels.

    Parameters
    ----------
    path
        A CSV file (commas, semicolons or tabs) whose first line names the columns ``data_key``, ``unit_id`` and
        ``type``, in any order; other columns are ignored. Neurons whose type is empty, -1, NaN, none, null, NA or
        unknown are left out: most neurons may have none.

    Returns
    -------
    pandas.DataFrame
        ``data_key`` (str), ``unit_id`` (int64) and ``type`` (str) of the labelled neurons. ``attrs["n_unlabelled"]`` is
        the number of lines without a type.

    Raises
    ------
    SettingsError
        If the file cannot be read, a column is missing, a unit id is no integer, a neuron is there twice, or no neuron
        has a type; the first ten mistakes, each with its line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(f"the labels {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise SettingsError(f"the labels {path} are no text in UTF-8. Save the file as CSV in UTF-8.") from None
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter, skipinitialspace=True)
    _check_columns(path, [name.strip() for name in reader.fieldnames or []])
    reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
    rows, mistakes, n_unlabelled = [], [], 0
    seen: dict[tuple[str, int], int] = {}
    for row in reader:
        line = reader.line_num
        values = {name: (row[name] or "").strip() for name in COLUMNS}
        problem = _problem(values, seen, line)
        if problem:
            mistakes.append(f"{path}:{line}: {problem}")
        elif values["type"].lower() in UNKNOWN:
            n_unlabelled += 1
        else:
            rows.append((values["data_key"], int(values["unit_id"]), values["type"]))
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


def _check_columns(path: Path, names: list[str]) -> None:
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        close = did_you_mean(missing[0], names).partition("Allowed:")[0] if names else ""
        raise SettingsError(
            f"{path}:1: there is no column {missing[0]!r}. {close}The first line must name the columns "
            f"{', '.join(COLUMNS)}; it names {', '.join(names) or 'nothing'}."
        )


def _problem(values: dict[str, str], seen: dict[tuple[str, int], int], line: int) -> str | None:
    if not values["data_key"]:
        return "the data_key is empty."
    try:
        unit_id = int(values["unit_id"])
    except ValueError:
        return f"unit_id is {values['unit_id']!r}; it must be an integer."
    first = seen.setdefault((values["data_key"], unit_id), line)
    if first != line:
        return f"unit {unit_id} of session {values['data_key']!r} is there already, in line {first}."
    return None


def _first(mistakes: list[str], path: Path) -> Iterator[str]:
    if len(mistakes) > 1:
        yield f"{path} has {len(mistakes)} mistakes:"
    yield from mistakes[:MOST_MISTAKES]
    if len(mistakes) > MOST_MISTAKES:
        yield f"... and {len(mistakes) - MOST_MISTAKES} more."
