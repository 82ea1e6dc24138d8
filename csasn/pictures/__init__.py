"""From the bytes of one file to the grey picture that a viewer shows, and what may be said of it: no manifest, and no case."""
