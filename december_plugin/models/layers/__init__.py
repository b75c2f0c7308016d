"""Torch modules that the models are built of."""
