"""Models and data: where they come from, how data is split and fed."""
