"""What the suites have in common: peers, turns, results."""
