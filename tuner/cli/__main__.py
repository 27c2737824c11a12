"""`python -m tuner.cli` is `tuner`."""

from tuner.cli import main

main()
