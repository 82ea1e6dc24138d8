"""The CSASN network."""
