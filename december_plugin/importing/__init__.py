"""Makes other packages importable, or says why they are not: shims, optional extras, deferred imports."""
