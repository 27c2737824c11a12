"""Which Python source code a study runs: its own files, followed through imports, and the packages they come from.

`places` tells own code from installed packages, `definitions` says what a source means, `modules` finds the file of a
module without importing it, `running` sees the code that runs, and `reached` puts them together.
"""
