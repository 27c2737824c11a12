"""What the records say. Frames in, Findings out; torch is not needed here.

`frames` is the only door from the Ledger to pandas. Each question of the playbook is a module: a pure function
from `StudyFrames` to a frame of evidence, and one that words the `Finding`.
"""
