"""Simulated recordings with planted cell types, one module for each recording format, and the planted truth."""

from december_plugin.simulate.macaque_v4 import read_macaque_v4_truth, write_macaque_v4_recording
from december_plugin.simulate.movies import MovieTruth, read_movie_truth, write_movie_recording
from december_plugin.simulate.scale import write_recordings
from december_plugin.simulate.sensorium import (
    RecordingTruth,
    SimulatedRecording,
    draw_recording,
    read_truth,
    write_recording,
)

__all__ = [
    "MovieTruth",
    "RecordingTruth",
    "SimulatedRecording",
    "draw_recording",
    "read_macaque_v4_truth",
    "read_movie_truth",
    "read_truth",
    "write_macaque_v4_recording",
    "write_movie_recording",
    "write_recording",
    "write_recordings",
]
