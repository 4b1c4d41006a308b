"""Offline: from a folder of chest X-rays to the weights the node runs. Not in the node."""
