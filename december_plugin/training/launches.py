"""Functions whose launches on the device are recorded once and then replayed, without Python in between.

A step of a small model launches some hundred short kernels, and launching them takes longer than running them. A CUDA
graph launches all of them at once. What is recorded must not wait for the device, must use the same memory at every
call, and must not depend on anything that changes in Python. The first is checked before recording, since a failed
recording leaves torch's random generator unusable; the others by comparing the first replay with the function itself.
"""

from __future__ import annotations

import functools
import logging
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

# Torch's warnings that something waits for the device, and that it may not notice everything that does.
WAITED, PROTOTYPE = "called a synchronizing CUDA operation", "Synchronization debug mode is a prototype"
TOLERANCE = 1e-2  # relative, of what one call changes: replays differ by rounding, sums in an undefined order
# Relative to what one call changes in all tensors of a kind. The gradient of a bias before batch normalisation is the
# rounding of larger ones: on an H200 two calls differ in it by up to 4e-8 of all gradients.
ROUNDING = 1e-6

Function = Callable[[], None]


class Recorder(Protocol):
    """How a kind of device records launches."""

    def warm_up(self, function: Function) -> str | None:
        """Run the function without recording; return why its launches cannot be recorded, or None."""

    def record(self, function: Function) -> Function:
        """Record the function's launches, without running it, and return what replays them."""

    def random_state(self) -> Any:
        """Return the state of the device's random generator."""

    def set_random_state(self, state: Any) -> None:
        """Restore it."""


class CudaRecorder:
    """Records CUDA graphs, all with one pool of memory: they are replayed one after the other.

    Parameters
    ----------
    device
        The GPU.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._index = torch.cuda.current_device() if device.index is None else device.index
        self._stream = _recording_stream(self._index)
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, function: Function) -> str | None:
        """Run the function on the stream of the recording; while it runs, torch reports what waits for the device."""
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught, torch.cuda.stream(self._stream):
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                function()
            finally:
                torch.cuda.set_sync_debug_mode(before)
        torch.cuda.current_stream(self.device).wait_stream(self._stream)
        waits = [each for each in caught if WAITED in str(each.message)]
        for other in caught:
            if not any(own in str(other.message) for own in (WAITED, PROTOTYPE)):
                warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
        return f"it waits for the device ({waits[0].filename}:{waits[0].lineno})" if waits else None

    def record(self, function: Function) -> Function:
        """Capture a CUDA graph."""
        graph = torch.cuda.CUDAGraph()
        generator = torch.cuda.default_generators[self._index]
        fresh, stream = generator.clone_state(), torch.cuda.current_stream(self.device)
        # The graph has its own memory, so that of the warm-up is freed.
        torch.cuda.empty_cache()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                function()
        except BaseException:
            # After recording, torch leaves both as they were meanwhile.
            generator.graphsafe_set_state(fresh)
            torch.cuda.set_stream(stream)
            raise
        return graph.replay

    def random_state(self) -> Any:
        """Return the state of the GPU's default generator."""
        return torch.cuda.get_rng_state(self.device)

    def set_random_state(self, state: Any) -> None:
        """Restore it."""
        torch.cuda.set_rng_state(state, self.device)


@functools.cache
def _recording_stream(index: int) -> torch.cuda.Stream:
    """Return the stream of a GPU for all recordings of this process: cuBLAS keeps its memory for a stream forever."""
    return torch.cuda.Stream(index)


class Launches:
    """Records functions of one training, and calls those directly that cannot be recorded.

    Parameters
    ----------
    recorder
        Recorder of the device.
    state
        Returns everything that the functions may change, by kind, such as all gradients: the tensors that a replay is
        compared in.
    warm_up
        How often a function runs normally before it is recorded, at least once, so that what happens only once (a first
        choice, memory for the gradients, compiling) is over by then.
    """

    def __init__(self, recorder: Recorder, state: Callable[[], Sequence[Sequence[Tensor]]], *, warm_up: int = 2):
        self.recorder, self.state, self.warm_up = recorder, state, warm_up
        self._given_up = False

    def recorded(self, function: Function, name: str) -> Function:
        """Return a function that does what ``function`` does, recorded once it has warmed up.

        Parameters
        ----------
        function
            Takes no arguments and returns nothing: it works on tensors that stay where they are.
        name
            Its name in the warning if it cannot be recorded.
        """
        return _Recorded(self, function, name)

    def record(self, function: Function, name: str) -> Function:
        """Call a function once, compare its recording with that, and return what to call from then on."""
        if self._given_up:
            function()
            return function
        try:
            replay = self.recorder.record(function)
        except Exception as error:
            # Earlier recordings would draw from a random generator that is no longer used.
            self._given_up = True
            return self.without_recording(function, name, f"{type(error).__name__}: {error}", run=True)
        if self._agrees(replay, function):
            return replay
        return self.without_recording(function, name, "a replay does not do the same as the call itself")

    @property
    def given_up(self) -> bool:
        """Whether a recording has failed, after which nothing is replayed."""
        return self._given_up

    def without_recording(self, function: Function, name: str, reason: str, *, run: bool = False) -> Function:
        """Warn that a function will be called without recording, and return it."""
        logger.warning(
            "%s is launched kernel by kernel, not as one CUDA graph, and the training may be slower (%s)",
            name,
            reason.splitlines()[0],
        )
        if run:
            function()
        return function

    def _agrees(self, replay: Function, function: Function) -> bool:
        """Replay, undo that, and call the function; return whether both changed the same."""
        random_state, before = self.recorder.random_state(), self._copy()
        replay()
        replayed = self._copy()
        with torch.no_grad():
            for tensors, values in zip(self.state(), before, strict=True):
                for tensor, value in zip(tensors, values, strict=True):
                    tensor.copy_(value)
        self.recorder.set_random_state(random_state)
        function()
        return all(_are_close(*kind) for kind in zip(replayed, self._copy(), before, strict=True))

    def _copy(self) -> list[list[Tensor]]:
        return [[tensor.detach().clone() for tensor in kind] for kind in self.state()]


class _Recorded:
    def __init__(self, launches: Launches, function: Function, name: str):
        self._launches, self._function, self._name = launches, function, name
        self._calls, self._reason = 0, ""
        self._settled: Function | None = None

    def __call__(self) -> None:
        if self._launches.given_up:
            self._settled = self._function
        if self._settled is not None:
            self._settled()
        elif self._calls < self._launches.warm_up:
            self._calls += 1
            self._reason = self._launches.recorder.warm_up(self._function) or ""
        elif self._reason:
            self._settled = self._launches.without_recording(self._function, self._name, self._reason, run=True)
        else:
            self._settled = self._launches.record(self._function, self._name)


def _are_close(replayed: Sequence[Tensor], called: Sequence[Tensor], before: Sequence[Tensor]) -> bool:
    """Return whether two results of a kind differ only by a little of each tensor's change, or by rounding."""
    changes = [_distance(one, other) for one, other in zip(called, before, strict=True)]
    rounding = ROUNDING * math.hypot(*changes)
    return all(
        _distance(one, other) <= TOLERANCE * change + 1e-6 * float(other.double().norm()) + rounding
        or torch.equal(one, other)
        for one, other, change in zip(replayed, called, changes, strict=True)
    )


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).norm())
