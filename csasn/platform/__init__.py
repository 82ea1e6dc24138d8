"""What the program needs of the machine: files, locks, processes, terminal, configuration. It knows no case."""
