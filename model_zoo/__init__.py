"""Builders and trained weights of well-known small models."""
