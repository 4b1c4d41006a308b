"""A corpus of bad input: generated, deterministic, small. One page for each family."""
