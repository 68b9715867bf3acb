"""Pruning: channels, whole blocks."""
