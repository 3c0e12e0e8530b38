"""What Hydra composed, read into a graph and settings."""
