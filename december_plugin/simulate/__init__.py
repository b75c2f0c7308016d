"""Simulated recordings with planted cell types, one module for each recording format, and the planted truth."""

from december_plugin.simulate.scale import write_recordings
from december_plugin.simulate.sensorium import (
    RecordingTruth,
    SimulatedRecording,
    draw_recording,
    read_truth,
    write_recording,
)

__all__ = [
    "RecordingTruth",
    "SimulatedRecording",
    "draw_recording",
    "read_truth",
    "write_recording",
    "write_recordings",
]
