"""docs/recordings.md: its code runs, its settings exist, and its header is one that is read."""

from __future__ import annotations

import re

import pytest
import yaml
from nnfabrik.builder import resolve_data

from december_plugin import datasets
from december_plugin.datasets import movie_loaders
from december_plugin.datasets.movies import header as movie_header
from december_plugin.validation.checks import check_complete, check_known
from helpers import pages

PAGE = pages.text_of("docs/recordings.md")
FILES = pages.claim("docs/recordings.md", "yaml")
(RECORDING,) = pages.claim("docs/recordings.md", "python")
ENTRIES = [entry for block in FILES for entry in yaml.safe_load(block.text).get("datasets", [])]


def test_every_dataset_function_has_a_section():
    functions = {name for name in datasets.__all__ if name.endswith("_loaders")}
    assert set(re.findall(r"`(\w+_loaders)`", PAGE)) >= functions
    titles = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^## (.*)$", PAGE, re.M)
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= titles


@pytest.mark.parametrize("number", range(len(ENTRIES)))
def test_the_examples_have_settings_that_exist(number):
    entry = ENTRIES[number]
    function = resolve_data(entry["fn"])
    check_known(function, entry["config"])
    check_complete(function, entry["config"])


def test_the_header_of_the_page_is_that_of_the_module(tmp_path):
    (example,) = [block.text for block in FILES if block.text.startswith("format:")]
    (documented,) = re.findall(r"::\n\n(.*)", movie_header.__doc__ or "", flags=re.DOTALL)
    assert yaml.safe_load(example) == yaml.safe_load(documented)
    (tmp_path / movie_header.HEADER).write_text(example)
    header = movie_header.read_header(tmp_path)
    assert (header.data_key, header.frame_rate) == ("retina-7", 30.0)
    assert header.tiers == {"train": ("forest",), "validation": ("river",), "test": ("meadow",)}
    assert header.movies["meadow"].repeats == 10
    assert str(header.responses) == "at least 0"
    kinds = (movie_header.HeaderContent, movie_header.MovieEntry, movie_header.Tiers)
    for key in (key for kind in kinds for key in kind.model_fields):
        assert f"`{key}`" in PAGE, key


def test_the_recording_of_the_page_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RECORDING.run({})
    loaders = movie_loaders(["retina-7"], 8, chunk_frames=60)
    batch = next(iter(loaders["train"]["retina-7"]))
    assert batch.videos.shape == (5, 1, 60, 32, 32)
    assert batch.responses.isfinite().all()
