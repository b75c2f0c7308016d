"""Prints the UUIDs of the GPUs that CUDA shows a process with this environment, in CUDA's order, one per line.

A script for a separate process, which imports only the standard library. What a number in
``CUDA_VISIBLE_DEVICES`` means depends on ``CUDA_DEVICE_ORDER``, on the container and on the scheduler's restrictions;
the driver API applies all of them, and creates no context on a GPU to answer.
"""

from __future__ import annotations

import ctypes
import sys
import uuid
from typing import Any

N_BYTES = 16  # of a UUID
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
NO_LIBRARY = 3  # exit code


def uuids_in_order(cuda: Any) -> list[str]:
    """Return the UUIDs, without ``GPU-`` or ``MIG-``, that the driver's library ``cuda`` (libcuda) lists.

    Raises
    ------
    OSError
        The driver refuses.
    """
    count, device, digits = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(N_BYTES)
    # The second version distinguishes a MIG part from the whole; the first one is that of drivers before MIG.
    get_uuid = getattr(cuda, "cuDeviceGetUuid_v2", None) or cuda.cuDeviceGetUuid
    result = cuda.cuInit(0)
    if result == NO_DEVICE:
        return []
    _check(result)
    _check(cuda.cuDeviceGetCount(ctypes.byref(count)))
    found = []
    for ordinal in range(count.value):
        _check(cuda.cuDeviceGet(ctypes.byref(device), ordinal))
        _check(get_uuid(digits, device))
        found.append(str(uuid.UUID(bytes=digits.raw)))
    return found


def _check(result: int) -> None:
    if result != 0:
        raise OSError(f"the CUDA driver says {result}")


def main() -> int:
    """Print the UUIDs; return the exit code: 0, 1 if the driver refuses (see stderr), 3 if there is none."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return NO_LIBRARY
    try:
        print("\n".join(uuids_in_order(cuda)))
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
