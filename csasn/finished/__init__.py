"""The finished model: its files, and what it says of an image. Training is in csasn/learning."""
