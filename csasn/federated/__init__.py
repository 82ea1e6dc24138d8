"""Updates as integers and their sums: NumPy only, no torch and no Flower."""
