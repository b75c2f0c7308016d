"""Mouse retina movies of Höfling et al. 2024, read by openretina."""
