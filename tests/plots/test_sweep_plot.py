"""The sweep's plot: every rate is there, and what has no number of steps has no place on the scale (D8, D11)."""

import io

import numpy as np
import pytest
from analysis.test_sweep_outcome import interval_fits
from matplotlib.figure import Figure

from tuner.analysis.sweep_outcome import sweep_outcome
from tuner.plots.sweep import sweep_plot
from tuner.records.sweep_outcomes import Fitted, SweepOutcome

FITS = interval_fits(
    {0.001: "complete", 0.01: (300, 400), 0.1: (90, 100), 0.3: (180, 200), 1.0: "infeasible", 3.0: "infeasible"}
)
WINNER = Fitted(0.1, 95, 100, 1000, seed_steps=(90, 110, 150), seed_low=70, seed_high=190)


def drawn(figure: Figure, label: str):
    """The points of one label."""
    (found,) = [line for line in figure.axes[0].lines if str(line.get_label()).startswith(label)]
    return found


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_fitted_rates_are_points_with_their_intervals():
    figure = sweep_plot(FITS, WINNER)
    points = drawn(figure, "fitted")
    assert points.get_xdata().tolist() == [0.01, 0.3]
    assert points.get_ydata().tolist() == [400, 200]
    spans = [segment[:, 1].tolist() for part in figure.axes[0].collections for segment in _segments(part)]
    assert [300, 400] in spans
    assert [180, 200] in spans
    assert [95, 100] in spans


def _segments(collection):
    return collection.get_segments() if hasattr(collection, "get_segments") else []


def test_the_fastest_rate_is_a_star_at_its_refined_interval_with_its_seeds_in_a_band():
    figure = sweep_plot(FITS, WINNER)
    star = drawn(figure, "fastest")
    assert (star.get_marker(), star.get_xdata(), star.get_ydata()) == ("*", [0.1], [100])
    assert list(drawn(figure, "fresh seeds").get_ydata()) == [90, 110, 150]
    (band,) = [part for part in figure.axes[0].collections if part.get_label() == "90% of seeds"]
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (70, 190)


def test_rates_without_a_number_stand_on_the_top_edge_and_do_not_move_the_scale():
    figure = sweep_plot(FITS, WINNER)
    hollow, cross = drawn(figure, "not fitted"), drawn(figure, "diverged")
    assert (hollow.get_marker(), hollow.get_markerfacecolor()) == ("^", "none")
    assert cross.get_marker() == "x"
    for marks in (hollow, cross):
        assert len(marks.get_ydata()) > 0
        assert all(0.9 < height < 1 for height in marks.get_ydata())
        assert marks.get_transform() == figure.axes[0].get_xaxis_transform()
    assert "0.5" in [text.get_text() for text in figure.axes[0].texts]
    only_fitted = FITS[FITS["first_fit"].notna()]
    assert figure.axes[0].get_ylim() == sweep_plot(only_fitted, WINNER).axes[0].get_ylim()


def test_both_axes_are_logarithmic_and_hold_every_number():
    axes = sweep_plot(FITS, WINNER).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    low, high = axes.get_ylim()
    assert low < 70 < 400 < high
    assert axes.get_xlim()[0] < 0.001 < 3.0 < axes.get_xlim()[1]


def test_an_interval_that_begins_at_step_0_is_cut_at_the_lower_edge():
    fits = interval_fits({0.1: (0, 10), 0.3: (5, 12), 1.0: (20, 30)})
    axes = sweep_plot(fits, sweep_outcome(fits, 100)).axes[0]
    lows = [segment[:, 1].min() for part in axes.collections for segment in _segments(part)]
    assert min(lows) == pytest.approx(axes.get_ylim()[0])


def test_an_invalid_grid_has_no_winner_and_says_which_end_is_open():
    for rates, word in (((0.1, 0.3, 1.0), "higher"), ((1.0, 0.3, 0.1), "lower")):
        intervals = dict(zip(rates, [(90, 100), (40, 50), (10, 20)], strict=True))
        fits = interval_fits(dict(sorted(intervals.items())))
        figure = sweep_plot(fits, sweep_outcome(fits, 100))
        assert not any(label.startswith("fastest") for label in labels(figure))
        assert any(word in text.get_text() for text in figure.axes[0].texts)


def test_no_fit_is_a_sentence_and_no_number():
    fits = interval_fits({0.1: "complete", 0.3: "complete", 1.0: "infeasible"})
    figure = sweep_plot(fits, sweep_outcome(fits, 100))
    assert figure.axes[0].get_yticks().tolist() == []
    assert any("no number of steps" in text.get_text() for text in figure.axes[0].texts)
    assert labels(figure) == ["not fitted (value reached)", "diverged"]


def test_an_open_interval_over_seeds_reaches_the_top():
    figure = sweep_plot(FITS, Fitted(0.1, 95, 100, 1000, seed_steps=(90, 110), unfitted_seeds=1, seed_low=70))
    (band,) = [part for part in figure.axes[0].collections if part.get_label() == "90% of seeds"]
    assert np.isclose(band.get_paths()[0].vertices[:, 1].max(), figure.axes[0].get_ylim()[1])


@pytest.mark.parametrize(
    ("fits", "outcome"),
    [
        (FITS.iloc[:0], sweep_outcome(FITS.iloc[:0], 10)),
        (FITS, WINNER),
        (FITS.assign(final_value=np.nan), WINNER),
        (FITS.iloc[[0]], sweep_outcome(FITS.iloc[[0]], 10)),
        (interval_fits({0.1: "failed"}), sweep_outcome(interval_fits({0.1: "failed"}), 10)),
    ],
)
def test_every_sweep_can_be_drawn(fits, outcome: SweepOutcome):
    sweep_plot(fits, outcome).savefig(io.BytesIO(), format="png")
