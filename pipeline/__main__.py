"""Run one of the commands: `python -m pipeline <command>`."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
