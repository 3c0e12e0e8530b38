"""The commands of `python -m pipeline`, one in each module. `add_parser` adds its parser, whose `run` runs it."""
