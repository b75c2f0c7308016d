"""The demonstration: the whole workflow on simulated recordings."""
