"""Compare latents, draw them side by side, and measure their distances from a reference."""
