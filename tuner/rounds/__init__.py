"""The strategy: which trials are run next, and at which length.

`plan` turns a declared round into a Study and its Trials. `sweep` finds the step budget, `promotion` carries the
best points of one round to the next, `run` goes through the whole playbook.
"""
