"""The picture of a stability study: each update pale, means in the colour of their rate."""

import numpy as np
from analysis.test_stability import CALM, norms_of, records

from tuner.plots.stability import stability_plot


def test_gradient_norms_are_drawn_pale_with_a_line_of_means_on_top():
    calm, wild = (norms_of(multiple, np.tile([low, 3 * low], 50)) for multiple, low in ((1.0, 0.1), (5.0, 1.0)))
    figure = stability_plot(records(*CALM, norms=[calm, wild]))
    norms = figure.axes[1]
    assert norms.get_title(loc="left") == "Gradient norm, before clipping"
    lines = {line.get_label(): line for line in norms.get_lines() if not str(line.get_label()).startswith("_")}
    assert list(lines) == ["1 x the best rate", "5 x the best rate"]
    for line, mean in zip(lines.values(), (0.2, 2.0), strict=True):
        np.testing.assert_allclose(line.get_ydata(), mean)
    pale = [line for line in norms.get_lines() if line.get_alpha() is not None]
    assert [len(line.get_ydata()) for line in pale] == [100, 100]
