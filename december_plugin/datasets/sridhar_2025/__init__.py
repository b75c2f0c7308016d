"""Marmoset retina movies of Sridhar et al. 2025, read by openretina."""
