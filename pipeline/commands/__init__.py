"""The commands of `python -m pipeline`, a module each: `add_parser` adds its parser, whose `run` runs it."""
