"""Pixels: from a file to stored values, to the picture a monitor shows, to their digests.

Reads headers and pixels only; decides nothing about medicine and imports no network.
"""
