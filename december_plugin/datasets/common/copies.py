"""Refuses one recording under two names, whose neurons would count twice in every agreement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from december_plugin.errors import RecordingError


@dataclass(frozen=True)
class Recorded:
    """The responses of one session, read only as far as necessary.

    Attributes
    ----------
    where
        The folder or file, for messages; with the session if a file has several.
    responses
        Returns the responses of the session's neurons part by part, each part an array of any shape.
    """

    where: str
    responses: Callable[[], Iterator[np.ndarray]]


def refuse_copies(sessions: Iterable[Recorded]) -> None:
    """Raise an error if two sessions have identical responses, value for value and in the same order.

    The first part of every session is read; the rest is compared only if two first parts are equal, up to the first
    difference. Sessions without any response (all zero) do not count as copies of each other.

    Raises
    ------
    RecordingError
        If there are two.
    """
    alike: dict[tuple[tuple[int, ...], bytes], list[Recorded]] = {}
    for session in sessions:
        first = next(session.responses(), np.empty(0)).astype(np.float32)
        others = alike.setdefault((first.shape, first.tobytes()), [])
        for other in others:
            if _are_identical(other.responses(), session.responses()):
                raise RecordingError(
                    f"{other.where} and {session.where} have the same responses: one recording under two names, whose "
                    "neurons would count twice. Leave one of them out; if they are simulated, write one again with "
                    "another seed."
                )
        others.append(session)


def _are_identical(first: Iterator[np.ndarray], second: Iterator[np.ndarray]) -> bool:
    measured = False
    for one, other in zip_longest(first, second):
        if one is None or other is None or not np.array_equal(one, other):
            return False
        measured = measured or bool(np.any(one))
    return measured
