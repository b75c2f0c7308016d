"""Stretches of movies: what a batch holds, in which order, and what two datasets have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from december_plugin.datasets.common.chunks import ChunkedMovie, MovieInMemory, RetinaNeurons, chunk_loader
from december_plugin.datasets.common.trials import by_tier
from december_plugin.embeddings.readout_vectors import unit_ids_of


def movie(*, n_frames: int = 40, starts: Any = (0, 10, 20, 30), **settings: Any) -> ChunkedMovie:
    """Build a movie whose pixels and responses say which frame they belong to."""
    frames = torch.arange(n_frames, dtype=torch.float32)
    return ChunkedMovie(
        **{
            "data_key": "a",
            "movie": MovieInMemory(frames[None, :, None, None].expand(2, n_frames, 3, 4).contiguous()),
            "responses": frames[:, None] + 1000 * torch.arange(5),
            "chunk": 8,
            "starts": np.array(starts),
            "frame_rate": 30.0,
            "neurons": RetinaNeurons(np.arange(5) + 7),
            "response_unit": "counts",
            "mean_responses": np.zeros(5, dtype=np.float32),
            **settings,
        }
    )


def test_an_ordered_tier_is_served_stretch_by_stretch() -> None:
    loader = chunk_loader(movie(), "validation", batch_size=3)
    batches = list(loader)
    assert [len(batch.videos) for batch in batches] == [3, 1]
    videos = torch.cat([batch.videos for batch in batches])
    responses = torch.cat([batch.responses for batch in batches])
    assert videos.shape == (4, 2, 8, 3, 4)
    assert responses.shape == (4, 8, 5)
    expected = torch.tensor([0, 10, 20, 30])[:, None] + torch.arange(8)
    assert torch.equal(videos[:, 1, :, 2, 3], expected.float())
    assert torch.equal(responses[:, :, 3], expected.float() + 3000)


def test_a_training_tier_is_shuffled_and_moved_by_the_global_generator() -> None:
    loader = chunk_loader(movie(jitter=8), "train", batch_size=4)
    torch.manual_seed(0)
    epochs = [list(loader.sampler) for _ in range(40)]
    torch.manual_seed(0)
    assert [list(loader.sampler) for _ in range(40)] == epochs
    starts = np.array(epochs)
    assert starts.min() == 0
    assert starts.max() == 32  # the last one that fits
    moves = np.sort(starts, axis=1) - [0, 10, 20, 30]
    assert set(moves[:, 0]) == set(range(8))
    assert any(list(epoch) != sorted(epoch) for epoch in epochs)
    batch = next(iter(loader))
    assert torch.equal(batch.videos[:, 0, :, 0, 0] + 1000, batch.responses[:, :, 1])


def test_without_jitter_the_plan_is_only_shuffled() -> None:
    sampler = chunk_loader(movie(), "train", batch_size=4).sampler
    assert sorted(sampler) == [0, 10, 20, 30]
    assert len(sampler) == 4


def test_a_stretch_that_does_not_fit_is_no_item() -> None:
    dataset = movie()
    for start in (-1, 33):
        with pytest.raises(IndexError, match=f"no 8 frames of 40 begin with frame {start}"):
            dataset[start]


def test_a_dataset_describes_itself() -> None:
    dataset = movie()
    info = dataset.data_info()
    assert info["input_dimensions"] == [1, 2, 8, 3, 4]
    assert info["output_dimension"] == 5
    assert info["frame_rate"] == 30.0
    loaders = by_tier({"a": {"train": chunk_loader(dataset, "train", batch_size=2)}})
    assert list(unit_ids_of(loaders)["a"]) == [7, 8, 9, 10, 11]


def test_a_fingerprint_covers_everything_that_is_served() -> None:
    first = movie()
    others = [
        movie(jitter=8),
        movie(chunk=7),
        movie(starts=(0, 10, 20)),
        movie(n_frames=41),
        movie(frame_rate=85.0),
        movie(responses=first.responses + 1),
        movie(neurons=RetinaNeurons(np.arange(5))),
        movie(movie=MovieInMemory(first.movie.frames + 1)),  # type: ignore[attr-defined]
    ]
    fingerprints = {dataset.fingerprint() for dataset in (first, *others)}
    assert len(fingerprints) == len(others) + 1
    assert movie().fingerprint() == first.fingerprint()
    assert movie(mean_responses=np.ones(5, dtype=np.float32), data_key="b").fingerprint() == first.fingerprint()
