"""The command line: a module per command. The only part that prints, and it imports the heavy parts late."""

from tuner.cli.process import main

__all__ = ["main"]
