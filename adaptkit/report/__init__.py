"""Turns measurements into text, JSON and HTML; measures nothing."""
