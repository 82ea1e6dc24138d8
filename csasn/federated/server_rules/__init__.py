"""Rules of the server, one file each: what a round makes of the mean of the sites' updates."""
