"""The command `latentgrid [--project FOLDER] COMMAND ...`, also as `python -m latentgrid`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run a command in the project that `--project` names, or else in the one of `pipeline/base/project.py`."""
    if sys.argv[1:2] == ["--project"] and len(sys.argv) > 2:
        os.environ["LATENTGRID_PROJECT"] = sys.argv[2]  # read when the project module is imported
        del sys.argv[1:3]
    from pipeline.cli import main as run_command_line

    run_command_line()


if __name__ == "__main__":
    main()
