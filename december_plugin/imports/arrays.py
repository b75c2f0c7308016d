"""Reads matrices from NumPy, CSV and Parquet files."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from december_plugin.errors import EmbeddingError

if TYPE_CHECKING:
    import pandas as pd

NUMPY = (".npy", ".npz")
TABLES = (".csv", ".parquet")
SUFFIXES = (*NUMPY, *TABLES)
ROWS_AT_ONCE = 4096
NAMELESS = "Unnamed: "  # what pandas calls them


def read_array(path: str | Path, *, name: str | None = None) -> npt.NDArray[Any]:
    """Return the array in a ``.npy`` or ``.npz`` file; a ``.npy`` file is memory-mapped.

    Parameters
    ----------
    path
        The file; read with ``allow_pickle=False``.
    name
        Which array of a ``.npz`` file; None: the only one.

    Raises
    ------
    EmbeddingError
        If the file cannot be read, holds objects, or has several arrays and none is named.

    See Also
    --------
    read_readouts : Also says whose vectors they are.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.imports import read_array
    >>> np.savez("models.npz", first=np.zeros((10, 4)), second=np.ones((10, 4)))
    >>> read_array("models.npz", name="second").mean()
    np.float64(1.0)
    """
    path = Path(path)
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded as arrays:
            return arrays[_array_name(arrays.files, name, path)]
    except FileNotFoundError:
        raise EmbeddingError(f"there is no file {path}.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, EmbeddingError):
            raise
        raise EmbeddingError(
            f"{path} cannot be read as an array of NumPy: {error}. It may be incomplete; arrays of Python objects need "
            "code to be loaded and are refused."
        ) from None


def _array_name(names: list[str], name: str | None, path: Path) -> str:
    if name is None and len(names) == 1:
        return names[0]
    if name not in names:
        wanted = "one must be named" if name is None else f"there is none named {name!r}"
        raise EmbeddingError(f"{path} has {len(names)} arrays ({', '.join(names) or 'none'}); {wanted}.")
    return name


def read_table(path: str | Path) -> pd.DataFrame:
    """Return a CSV or Parquet file as a frame.

    The first line of a CSV file names its columns, unless it has numbers; the column numbers of a frame without names,
    counted from 0, count as names, too.

    Raises
    ------
    EmbeddingError
        If the file cannot be read.
    """
    import pandas as pd

    path = Path(path)
    if not path.is_file():
        raise EmbeddingError(f"there is no file {path}.")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        first = pd.read_csv(path, header=None, nrows=1, dtype=str, encoding="utf-8-sig").iloc[0]
        has_names = _are_names([str(value) for value in first])
        header = 0 if has_names else None
        # Before 3.1 pandas rounds the last bits unless it is told not to; since then the option is deprecated.
        rounds = tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1)
        exact: Any = {"float_precision": "round_trip"} if rounds else {}
        return pd.read_csv(path, header=header, encoding="utf-8-sig", **exact)
    except (OSError, ValueError, EOFError, pd.errors.ParserError) as error:  # pyarrow's errors are ValueErrors
        reason = " ".join(str(error).split())
        raise EmbeddingError(f"{path} cannot be read as a table: {reason[:200]}.") from None


def _are_names(line: list[str]) -> bool:
    """Whether the first line of a CSV file (an empty cell is "nan") has names of columns, and not numbers."""
    counted = line[1:] if line[0] == "nan" else line  # without the index
    is_counted = len(counted) > 1 and counted == [str(number) for number in range(len(counted))]
    return is_counted or not all(_is_number(value) for value in line)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_matrix(path: str | Path, *, name: str | None = None) -> npt.NDArray[np.floating[Any]]:
    """Return a matrix of finite numbers from a file of any supported kind.

    Parameters
    ----------
    path
        ``.npy``, ``.npz``, ``.csv`` or ``.parquet``.
    name
        Which array of a ``.npz`` file; None: the only one.

    Raises
    ------
    EmbeddingError
        As for :func:`read_array` and :func:`checked_matrix`, or for another kind of file.
    """
    path = Path(path)
    if path.suffix in NUMPY:
        return checked_matrix(read_array(path, name=name), str(path))
    if path.suffix in TABLES:
        return table_matrix(read_table(path), str(path))
    raise EmbeddingError(f"{path} is of an unknown kind; known are {', '.join(SUFFIXES)}.")


def table_matrix(frame: pd.DataFrame, name: str) -> npt.NDArray[np.floating[Any]]:
    """Return a frame, all of whose columns must be numbers and have a name, as :func:`checked_matrix` does."""
    nameless = [column for column in frame.columns if str(column).startswith(NAMELESS)]
    if nameless:
        raise EmbeddingError(
            f"{name} has a column without a name, as an index is written to CSV; it would be taken for weights. Leave "
            "it out, with pandas by to_csv(..., index=False)."
        )
    words = [str(column) for column, kind in frame.dtypes.items() if kind.kind not in "iuf"]
    if words:
        raise EmbeddingError(
            f"{name} has the column {words[0]!r}, which does not hold numbers. Leave it out of the table."
        )
    return checked_matrix(frame.to_numpy(), name)


def checked_matrix(array: npt.NDArray[Any], name: str) -> npt.NDArray[np.floating[Any]]:
    """Return an array, float32 or float64, with two dimensions and only finite numbers.

    Parameters
    ----------
    array
        Any kind of numbers; checked some rows at a time, as a mapped one may be large.
    name
        Its name in messages.

    Raises
    ------
    EmbeddingError
        If it is not such an array, or has no entries.
    """
    if array.ndim != 2 or not array.size or array.dtype.kind not in "iuf":
        raise EmbeddingError(
            f"{name} is {array.dtype} of the shape {array.shape}; it must be a matrix of numbers, one row per neuron."
        )
    for start in range(0, len(array), ROWS_AT_ONCE):
        finite = np.isfinite(array[start : start + ROWS_AT_ONCE])
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise EmbeddingError(
                f"{name} has NaN or infinite numbers, the first in row {start + row}, column {column} (from 0)."
            )
    return array if array.dtype in (np.float32, np.float64) else array.astype(_float_for(array.dtype))


def _float_for(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    return np.float32 if dtype.kind == "f" and dtype.itemsize < 4 else np.float64
