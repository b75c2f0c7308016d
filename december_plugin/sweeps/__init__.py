"""Sweep files: read, check, estimate and register them; those of december are in the folders next to this file."""
