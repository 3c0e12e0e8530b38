"""Runs on request: the sampling stage as a function and as a Kafka worker."""
