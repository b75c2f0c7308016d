"""Mouse V1 recordings in the SENSORIUM 2022 folder layout."""
