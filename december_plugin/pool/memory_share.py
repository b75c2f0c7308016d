"""How the workers of one GPU share its memory."""

from __future__ import annotations

OVERHEAD = 1 << 29  # reserved for each process: what CUDA takes for itself, which torch does not count (bytes)


def memory_share(total: int, n_sharing: int) -> int:
    """Return how much memory torch may take in each of the processes that share a GPU (bytes).

    Parameters
    ----------
    total
        Memory of the GPU (bytes).
    n_sharing
        Workers on it. A single one may take everything.
    """
    return total if n_sharing < 2 else max(0, total // n_sharing - OVERHEAD)
