"""What tests of several files share: labs with planted results, small data, stand-ins, and servers of their own.

Import it as ``helpers``; processes that tests start find it with ``FOLDER`` on their ``PYTHONPATH``.
"""

from pathlib import Path

FOLDER = str(Path(__file__).resolve().parents[1])
