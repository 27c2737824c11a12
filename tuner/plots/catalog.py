"""Every plot by its name.

To add a plot, write a file with a record of `plot.Plot` in this folder, or register one from a plugin. Nothing else
lists plots.
"""

from tuner.plots.plot import Plot
from tuner.registry import Registry

PLOTS: Registry[Plot] = Registry("plot", Plot, package="tuner.plots", order=lambda plot: (plot.place, plot.name))
