"""From a site's manifest and its pictures to cases that a model can read."""
