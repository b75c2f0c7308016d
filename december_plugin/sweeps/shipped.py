"""The sweeps that come with this package: the experiments of two papers, and small versions of them for a laptop.

Every experiment of the DECEMber paper, and rotation-invariant clustering with the settings of its own paper. They are
named by folder and file, ``paper/mouse-v1-strength`` or ``laptop/mouse-v1-strength``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from december_plugin.errors import SettingsError, did_you_mean

FOLDER = Path(__file__).parent
KINDS = ("paper", "laptop")


def names() -> list[str]:
    """Return the names of all shipped sweeps, those of the paper first."""
    return [f"{kind}/{path.stem}" for kind in KINDS for path in sorted((FOLDER / kind).glob("*.yaml"))]


def shipped_path(name: str) -> Path:
    """Return the file of a shipped sweep.

    Parameters
    ----------
    name
        As returned by :func:`names`, with or without ``.yaml``.

    Raises
    ------
    SettingsError
        If there is no such sweep.
    """
    plain = name.removesuffix(".yaml")
    if plain not in names():
        raise SettingsError(f"there is no shipped sweep {name!r}. {did_you_mean(plain, names())}")
    return FOLDER / f"{plain}.yaml"


def find_sweep(name: str) -> tuple[Path, Path]:
    """Return the file of a sweep, and the folder of its relative paths.

    Parameters
    ----------
    name
        A file, or the name of a shipped sweep. A file that exists comes first.

    Returns
    -------
    file, folder
        The folder is the file's own, and the current folder for a shipped sweep.

    Raises
    ------
    SettingsError
        If it is neither.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path, path.resolve().parent
    if name.removesuffix(".yaml") in names():
        return shipped_path(name), Path.cwd()
    if name.partition("/")[0] in KINDS and not path.parent.exists():
        shipped_path(name)  # raises, with a suggestion
    raise SettingsError(
        f"the sweep {name} cannot be read: No such file or directory. Name a YAML file or a shipped sweep "
        "(`december sweeps list`)."
    )


def summary(name: str) -> str:
    """Return the first line of a shipped sweep's comment."""
    with shipped_path(name).open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip()


def copy_sweep(name: str, folder: str | Path) -> Path:
    """Copy a shipped sweep into a folder, for editing.

    Parameters
    ----------
    name
        As returned by :func:`names`.
    folder
        Where to write; created if it does not exist.

    Returns
    -------
    pathlib.Path
        The copy.

    Raises
    ------
    SettingsError
        If there is no such sweep, a file of this name with other content exists already, or the folder cannot be
        written.
    """
    source = shipped_path(name)
    target = Path(folder).expanduser() / source.name
    if target.exists() and target.read_bytes() != source.read_bytes():
        raise SettingsError(f"{target} exists already and differs. Choose another folder, or rename it.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        raise SettingsError(f"{target} cannot be written ({error.strerror}). Choose another folder.") from None
    return target
