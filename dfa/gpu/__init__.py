"""What shows that the package works on a GPU, and how fast."""
