"""Runs that others ask for: the sampling stage as a function."""
