"""Helpers that every other package may use: events, files, locks, waiting."""
