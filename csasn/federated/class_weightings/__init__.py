"""Class weightings, one file each: what makes ω of the sums over all sites."""
