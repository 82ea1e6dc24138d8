"""Secure aggregation (csasn/SPEC.md, "Secure aggregation"): keys, masks and signatures as pure functions."""
