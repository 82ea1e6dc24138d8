"""The checks before a run, and what they look at."""
