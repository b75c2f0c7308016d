"""Spike counts of macaque V4 to images, in two layouts."""
