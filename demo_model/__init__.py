"""The making of the demo model in models/: its pictures, latents and training, and a classifier for its pictures."""
