"""Parse the config that Hydra composed into a graph and settings."""
