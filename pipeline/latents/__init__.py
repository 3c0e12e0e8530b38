"""Latents compared, drawn side by side, and held against a reference."""
