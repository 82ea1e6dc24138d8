"""Secure aggregation (csasn/SPEC.md, "Secure aggregation"): the sites' and the coordinator's parts as pure functions of state."""
