"""Measure a weights folder on any data folder, through the node's own page; never trains."""
