"""How the demo model in models/ is made: its pictures, its latents, its training, and a classifier that reads it."""
