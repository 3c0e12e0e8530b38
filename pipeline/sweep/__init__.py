"""Sweeps: Hydra multiruns that are planned as a whole."""
