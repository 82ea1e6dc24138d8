"""A federation on one machine: the two workers, baselines, and the progress that people watch."""
