"""From a site's manifest and images to cases that a model can read."""
