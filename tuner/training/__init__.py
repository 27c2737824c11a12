"""Trials in torch: one step at a time, exactly repeatable, resumable at any step.

Everything random is a function of (seed, step): batch order, augmentation, dropout. So a trial that is stopped,
killed or continued elsewhere with the same Numerics ends with the same bits. Nothing here knows the Ledger:
measurements and checkpoints go to a `records.Recorder`.
"""
