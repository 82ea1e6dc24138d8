"""From a hospital's archive to a manifest: finds a study's ultrasound pictures, and writes them without identifiers."""
