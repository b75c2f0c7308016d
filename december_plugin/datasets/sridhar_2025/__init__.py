"""Marmoset retina movies of Sridhar et al. 2026, read by openretina."""
