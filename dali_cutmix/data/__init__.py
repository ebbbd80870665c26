"""Data sets: what they are, how they are read, and whether they are complete."""
