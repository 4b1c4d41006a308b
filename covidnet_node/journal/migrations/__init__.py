"""Alembic's scripts; run by `schema.py` whenever a journal is opened."""
