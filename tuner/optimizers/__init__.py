"""The optimizers of this package, one file each: its record (`design.optimizers`) and what the record calls.

torch is imported by the functions, because the records are read where torch is not installed. Defaults are torch's, but
weight decay, which is 0 unless a search space declares it: a sweep relies on it that what is not declared is off (D2).
"""
