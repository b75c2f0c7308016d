"""Spike counts of macaque V4 to images, in the two layouts in which they are passed on."""
