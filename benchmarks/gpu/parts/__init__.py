"""The parts of ``make gpu``, in the order in which they run.

A part is a module of this package. Its docstring begins with what it shows, and it has

``LIMIT_S``
    Seconds after which it is ended, at most 120, including the start of Python and of the device.
``measure(device, *, tiny)``
    Yields :class:`~benchmarks.gpu.rows.Row` after row; what was yielded before a crash or the limit is kept. ``device``
    is ``"cuda"`` or ``"cpu"``, ``tiny`` asks for sizes at which all of it takes about a second on a CPU.

To add one, write the module and name it in ``PARTS``. All limits together stay within ``TOTAL_S``.
"""

PARTS = ("tests", "mixture", "readout", "step", "kmeans", "training", "precision", "workers")
TOTAL_S = 480
LONGEST_S = 120
