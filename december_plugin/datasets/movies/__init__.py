"""The generic movie format: arrays on disk and a YAML header."""
