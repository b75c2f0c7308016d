"""scikit-learn on one thread, and without checking again what was checked before.

For small fits, both cost more than the arithmetic; and sums over threads are added up in the order in which the threads
finish.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager

import sklearn.cluster  # noqa: F401 - the threads of libraries that are loaded later are not found
from sklearn import config_context
from threadpoolctl import ThreadpoolController


@contextlib.contextmanager
def lean_sklearn() -> Iterator[None]:
    """Let scikit-learn run on one OpenMP thread, in the calling thread, and take data and settings as they are."""
    with one_thread("openmp"), config_context(assume_finite=True, skip_parameter_validation=True):
        yield


def one_thread(user_api: str) -> AbstractContextManager[object]:
    """Limit the threads of "openmp" in the calling thread, or those of "blas" in the process, to one."""
    limit: AbstractContextManager[object] = _controller().limit(limits=1, user_api=user_api)
    return limit


@functools.cache
def _controller() -> ThreadpoolController:
    """Return what limits the threads of the loaded libraries; finding them takes milliseconds."""
    return ThreadpoolController()
