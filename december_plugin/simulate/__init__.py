"""Simulated recordings with planted cell types, one module for each recording format, and the planted truth."""

from december_plugin.simulate.sensorium import RecordingTruth, read_truth, write_recording

__all__ = ["RecordingTruth", "read_truth", "write_recording"]
