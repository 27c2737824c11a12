"""A plot of the playbook per file: a frame in, a `Figure` out.

Figures are made without pyplot and without a global style, so that they can be drawn in any thread and none
changes another. `catalog` lists them by the names of `tuner plot`.
"""
