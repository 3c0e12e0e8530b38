"""Model files: the sets that are fetched, and the tiny model of the tests."""
