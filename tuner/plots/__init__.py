"""The plots of the playbook, one file each: a frame goes in, a `Figure` comes out.

No figure uses pyplot or a global style, so a figure can be drawn in any thread and none changes another. `catalog`
collects the records of all plots under the names of `tuner plot`.
"""
