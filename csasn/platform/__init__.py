"""What the program needs of the machine: files, locks, processes, terminal, configuration. Nothing here knows of cases or models."""
