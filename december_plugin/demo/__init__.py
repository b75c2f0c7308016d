"""The demonstration: the whole main job on simulated recordings."""
