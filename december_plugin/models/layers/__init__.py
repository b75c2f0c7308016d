"""Torch modules that the models consist of."""
