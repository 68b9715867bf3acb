"""adaptkit makes a trained PyTorch model small, fast and frugal enough for an edge server, and proves it."""

__version__ = "0.1.0"
