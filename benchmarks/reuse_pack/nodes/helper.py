"""A term of the sum, in a folder that is no package."""

TERM = 1.0
