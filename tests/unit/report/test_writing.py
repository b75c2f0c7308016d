"""Where a report may be written, and that it is written as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from december_plugin.errors import SettingsError
from december_plugin.report.writing import MARK, check_replaceable, write_report


def test_a_report_is_replaced_another_file_only_if_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    check_replaceable(path, force=False)
    path.write_bytes(b"<html>" + MARK)
    check_replaceable(path, force=False)
    path.write_text("mine")
    with pytest.raises(SettingsError) as caught:
        check_replaceable(path, force=False)
    assert str(caught.value) == (f"{path} exists and is not a december report; name another file (-o), or add --force.")
    check_replaceable(path, force=True)


def test_a_place_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        check_replaceable(tmp_path, force=True)
    assert str(caught.value) == f"{tmp_path} is a folder; name a file, e.g. {tmp_path / 'report.html'}."
    with pytest.raises(SettingsError) as caught:
        check_replaceable(tmp_path / "none" / "report.html", force=True)
    assert str(caught.value) == f"the folder {tmp_path / 'none'} does not exist; make it, or name another file (-o)."


def test_the_file_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        assert write_report(tmp_path / "report.html", "ä") == 2
    finally:
        os.umask(before)
    assert (tmp_path / "report.html").stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]


def test_what_was_there_stays_if_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("before")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SettingsError) as caught:
        write_report(path, "after")
    assert str(caught.value) == (
        f"{path} cannot be written: No space left on device. Name a file in a folder that you may write to."
    )
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
