"""Run the graph that conf/ declares: `python run.py [overrides]`. `python run.py --help` shows what can be set."""

from pipeline.cli import run_command

if __name__ == "__main__":
    run_command()
