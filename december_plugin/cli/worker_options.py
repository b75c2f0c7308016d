"""Options of the commands that start workers."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from december_plugin.errors import SettingsError


def seconds(text: str) -> float:
    """Read a positive time: seconds, ``MM:SS``, ``HH:MM:SS`` or ``D-HH:MM:SS``."""
    days, _, clock = text.rpartition("-") if text.count("-") == 1 and ":" in text else ("", "", text)
    parts = clock.split(":")
    try:
        if len(parts) > 3:
            raise ValueError
        total = float(days or 0) * 86400 + sum(float(part) * 60**power for power, part in enumerate(reversed(parts)))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; give seconds or HH:MM:SS") from None
    if not 0 < total < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of seconds")
    return total


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def gigabytes(text: str) -> float:
    """Read an amount of memory, which may be none."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount of memory; give gigabytes, or 0 for none")
    return number


def names(text: str) -> tuple[str, ...]:
    """Read names that are separated by commas."""
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def add_work_options(parser: argparse.ArgumentParser, *, idle_exit: float | None = None) -> None:
    """Add the options that workers and pools share; ``idle_exit`` is the default of that option (s)."""
    group = parser.add_argument_group("how to work")
    group.add_argument(
        "--only",
        type=names,
        default=(),
        metavar="TABLES",
        help="fill only these tables, e.g. TrainedModel,TestPerformance; gpu means all that use a GPU, cpu all others",
    )
    group.add_argument("--skip", type=names, default=(), metavar="TABLES", help="do not fill these tables")
    group.add_argument(
        "--lease",
        type=seconds,
        default=60.0,
        metavar="SECONDS",
        help="a worker without a heartbeat for this long counts as dead, and its job is free again (default: 60)",
    )
    group.add_argument(
        "--checkpoint-every",
        type=positive,
        default=5,
        metavar="EPOCHS",
        help="epochs between two checkpoints of a training (default: 5)",
    )
    group.add_argument(
        "--max-attempts",
        type=positive,
        default=3,
        metavar="N",
        help="give up a job that has killed its worker this many times without a new checkpoint (default: 3)",
    )
    group.add_argument(
        "--idle-exit",
        type=seconds,
        default=idle_exit,
        metavar="SECONDS",
        help="end after this long with nothing to do" + (f" (default: {idle_exit:g})" if idle_exit else ""),
    )
    group.add_argument(
        "--max-time",
        type=seconds,
        metavar="TIME",
        help="end after this time (seconds or HH:MM:SS); running jobs are checkpointed and continue later",
    )
    group.add_argument(
        "--data-cache",
        type=gigabytes,
        metavar="GB",
        help="memory of each worker for recordings that it keeps from one job to the next; 0 reads them again for "
        "every job (default: an eighth of what is free when the worker starts; at most half for a whole pool)",
    )
    group.add_argument(
        "--tensorboard",
        type=Path,
        metavar="FOLDER",
        help="write the curves of every training into a subfolder of this one while it trains, for `tensorboard "
        "--logdir FOLDER` (default: DECEMBER_TENSORBOARD, or december.tensorboard in DataJoint's configuration, or "
        "none)",
    )
    group.add_argument("--retry", action="store_true", help="retry jobs that failed earlier")
    group.add_argument(
        "--allow-modules",
        type=names,
        default=(),
        metavar="PACKAGES",
        help="packages whose functions entries in the database may name, in addition to december_plugin and those of "
        "december.allow_modules in DataJoint's configuration",
    )


TENSORBOARD_VARIABLE, TENSORBOARD_SETTING = "DECEMBER_TENSORBOARD", "december.tensorboard"


def tensorboard_folder(args: argparse.Namespace) -> Path | None:
    """Return the absolute folder for the curves of trainings; None if neither the option nor a setting names one.

    Raises
    ------
    SettingsError
        The setting is not a path, or the package tensorboard is not installed.
    """
    from december_plugin.importing.datajoint import quiet_datajoint
    from december_plugin.training.tensorboard import check_tensorboard

    setting = quiet_datajoint().config.get(TENSORBOARD_SETTING)
    if setting is not None and not isinstance(setting, str):
        raise SettingsError(f"{TENSORBOARD_SETTING} is {setting!r}; it must be the path of a folder.")
    chosen = args.tensorboard or os.environ.get(TENSORBOARD_VARIABLE) or setting
    if not chosen:
        return None
    check_tensorboard()
    return Path(chosen).expanduser().resolve()
