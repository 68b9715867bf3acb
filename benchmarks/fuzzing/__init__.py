"""Fuzzing of what reads files of users: made-up and damaged input, and what must come out of it."""
