"""Sweep files: read, check, estimate and register them; the ones that come with december are in the folders beside."""
