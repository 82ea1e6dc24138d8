"""Local objectives, one file each: what a site adds to the loss of its cases."""
