"""The command line as a fixture."""

from support.shell import tuner

__all__ = ["tuner"]
