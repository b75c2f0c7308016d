"""The examples in the docstrings of names that need the extra run, and show what they say.

Recordings are in the folder in which an example runs, in the published layouts but small: ``rgc-natstim`` of Höfling et
al. 2024 (``responses.h5``, two sessions of 6 and 3 neurons, and ``movie.pkl``), ``marmoset-retina`` of Sridhar et al.
2026 (retina 01 with 5 cells).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.docstring_examples import examples_of_extra, failures_of
from helpers.retina_files import write_hoefling, write_sridhar

SESSIONS = {
    "session_1_ventral1_20201021": {"n_neurons": 6, "order": 1},
    "session_1_dorsal1_20200626": {"n_neurons": 3, "order": 1, "eye": "left"},
}


@pytest.mark.filterwarnings("ignore")
def test_examples(tmp_path: Path) -> None:
    recordings = tmp_path / "recordings"
    write_hoefling(recordings / "rgc-natstim", SESSIONS)
    write_sridhar(recordings / "marmoset-retina", {"01": 5})

    def link(folder: Path) -> None:
        for recording in recordings.iterdir():
            (folder / recording.name).symlink_to(recording)

    said = [failures_of(test, tmp_path / test.name, fill=link) for test in examples_of_extra("openretina")]
    assert not any(said), "".join(said)
