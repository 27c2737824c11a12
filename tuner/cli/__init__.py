"""The command line. It is the only part that prints; `tuner --help` imports nothing heavy."""

from tuner.cli.app import main

__all__ = ["main"]
