"""The picture of a stability study: each update pale, means in the colour of their rate."""

import numpy as np
import pytest
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


@pytest.mark.parametrize(("last", "top"), [(0.4, 1.24), (1e17, 1.24), (np.inf, 1.24), (2.0, 2.54)])
def test_a_divergence_leaves_the_other_losses_in_the_picture(last, top):
    """From 1.0 to 0.2: what lies above 1.0 + 2 (1.0 - 0.2) is left out, and 0.3 of the rest is room."""
    losses = np.array([1.0, 0.8, 0.5, 0.2, last])
    curve = norms_of(1.0, np.ones(5)).assign(loss=losses)
    figure = stability_plot(records(*CALM, norms=[curve]))
    assert figure.axes[0].get_ylim()[1] == pytest.approx(top)
