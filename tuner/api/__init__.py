"""The Python API: the commands of `tuner` as functions, with results as objects.

`tuner.run`, `tuner.check` and the others are defined here and imported by `tuner` when they are first used: `records`
reads and exchanges studies and runs without torch, `training` needs torch.
"""
