import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from analysis.handmade import curve, frames_of_curves, frames_of_values, record, study
from matplotlib.figure import Figure

import tuner
from tuner.analysis.frames import frames_of
from tuner.analysis.questions.best_steps import best_steps_frame
from tuner.budget.families import constant_then_decay, linear
from tuner.design.hyperparameters import choice, integers, log_uniform, uniform
from tuner.design.quasi_random import quasi_random_points
from tuner.design.space import SearchSpace, branches
from tuner.errors import InputError
from tuner.plots.axes import AXES, axes_frame, axes_plot, value_limits
from tuner.plots.best_of_n import BEST_OF_N
from tuner.plots.best_steps import best_steps_plot
from tuner.plots.catalog import PLOTS
from tuner.plots.curves import CURVES, curves_plot
from tuner.plots.infeasible_map import INFEASIBLE
from tuner.plots.isolation import ISOLATION
from tuner.plots.parallel import PARALLEL
from tuner.plots.plot import StudyPlot
from tuner.plots.schedules import schedules_frame, schedules_plot
from tuner.plots.theme import empty_because
from tuner.plots.transfer import transfer_plot
from tuner.records import State
from tuner.registry import register

FRACTIONS = np.arange(1, 51) / 50
OF_A_STUDY = [plot for plot in PLOTS if isinstance(plot, StudyPlot)]
NAMES = [plot.name for plot in OF_A_STUDY]
SPACE = SearchSpace(
    learning_rate=log_uniform(1e-4, 1e-1),
    dropout=uniform(0.0, 0.5),
    layers=integers(1, 4),
    act=choice("$relu", "tanh$"),
)


def line(figure: Figure, label: str, panel: int = 0):
    """The drawn points of one label."""
    (found,) = [each for each in figure.axes[panel].lines if each.get_label() == label]
    return found


def frames(count: int = 24, *, bad_above: float = math.inf, direction: str = "minimize", sign: float = 1.0):
    points = quasi_random_points(SPACE, seed=0, start=0, count=count)
    values = [
        None if point["learning_rate"] > bad_above else sign * (1 + math.log10(point["learning_rate"] / 1e-3) ** 2)
        for point in points
    ]
    return frames_of_values(study(SPACE, direction=direction), [dict(p.values_by_name) for p in points], values)


def test_every_plot_is_one_record_that_says_how_it_is_read():
    """The records are what `tuner plot --help`, the page and the README show."""
    assert PLOTS.names == (
        "best-steps", "axes", "best-of-n", "isolation", "curves", "schedules", "infeasible", "parallel", "sweep",
        "transfer", "budget-curve", "stability",
    )  # fmt: skip
    for plot in PLOTS:
        assert all((plot.title, plot.caption, plot.absent, plot.scope)), plot.name
        assert plot.caption.endswith("."), plot.name
        assert plot.absent.endswith("."), plot.name


def test_the_help_page_and_the_readme_list_every_plot():
    done = subprocess.run([sys.executable, "-m", "tuner", "plot", "--help"], capture_output=True, text=True, check=True)
    listed = done.stdout.partition("\nKIND:")[2].partition("Options:")[0]
    assert [line.split()[0] for line in listed.strip().splitlines()] == list(PLOTS.names)
    readme = (Path(tuner.__path__[0]).parent / "README.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| `tuner plot KIND.*", readme, re.MULTILINE)
    assert {name for name in PLOTS.names if re.search(rf"(?<![\w-]){name}(?![\w-])", row)} == set(PLOTS.names)


def test_a_registered_plot_is_drawn_by_its_name_and_shown_on_the_page(monkeypatch):
    """A plot outside the package needs no change inside: the same record is read everywhere."""
    assert "values" not in PLOTS
    monkeypatch.setattr(PLOTS, "_records", dict(PLOTS._records))
    register(
        StudyPlot(
            name="values",
            title="Values",
            caption="All values.",
            absent="None yet.",
            place=25,
            draw=lambda frames: (Figure(), frames.complete[["trial", "best_value"]]),
        )
    )
    assert PLOTS.names[1:4] == ("axes", "values", "best-of-n")
    plot = PLOTS.get("values")
    assert isinstance(plot, StudyPlot)
    assert plot.draw(frames())[1]["trial"].tolist() == list(range(24))


def test_a_name_that_no_plot_has_is_answered_with_the_names_there_are():
    with pytest.raises(InputError, match=r"one of best-steps, axes, .*got 'axis'"):
        PLOTS.get("axis")


def axes_of(frames) -> Figure:
    return axes_plot(axes_frame(frames), frames)


def test_best_steps_are_drawn_as_fractions_with_censored_ones_hollow():
    curves = [(1.0 - 0.8 * FRACTIONS).tolist(), np.abs(FRACTIONS - 0.4).tolist()]
    table = best_steps_frame(frames_of_curves(study(), curves))
    figure = best_steps_plot(table, max_train_steps=1000)
    seen, hollow = line(figure, "best step"), line(figure, "best at the end")
    assert seen.get_ydata().tolist() == [0.4]
    assert hollow.get_ydata().tolist() == [1.0]
    assert hollow.get_markerfacecolor() == "white"
    assert line(figure, "first within noise").get_ydata().tolist() == table["earliest_fraction"].tolist()


def test_best_steps_show_the_bands_of_a14_and_a15():
    table = best_steps_frame(frames_of_curves(study(), [np.abs(FRACTIONS - 0.4).tolist()]))
    spans = [patch.get_extents().transformed(patch.axes.transData.inverted()) for patch in best_steps_plot(
        table, max_train_steps=1000).axes[0].patches]  # fmt: skip
    assert [(round(each.y0, 2), round(each.y1, 2)) for each in spans] == [(0.0, 0.1), (0.75, 1.02)]


def test_there_is_a_panel_for_every_varied_hyperparameter_in_its_sampling_scale():
    figure = axes_of(frames())
    assert [axes.get_xlabel() for axes in figure.axes] == ["learning_rate", "dropout", "layers", "act"]
    assert [axes.get_xscale() for axes in figure.axes] == ["log", "linear", "linear", "linear"]


def test_the_searched_range_is_drawn():
    bounds = [each for each in axes_of(frames()).axes[0].lines if each.get_linestyle() == "--"]
    assert [each.get_xdata()[0] for each in bounds] == [1e-4, 1e-1]


def test_the_best_three_are_starred():
    made = frames()
    best = made.complete.nsmallest(3, "best_value")
    stars = line(axes_of(made), "best 3")
    assert stars.get_marker() == "*"
    assert sorted(stars.get_xdata()) == sorted(best["learning_rate"])
    assert sorted(stars.get_ydata()) == sorted(best["best_value"])


def test_infeasible_trials_are_crosses_at_the_top_and_do_not_change_the_scale():
    """B29, D37: 1e30 before it diverged, and it must not flatten what can be seen."""
    made = frames(bad_above=2e-2)
    bad = made.trials["state"] == "infeasible"
    assert bad.any()
    without = type(made)(made.study, made.trials[~bad], made.curves)
    made.trials.loc[bad, "best_value"] = 1e30
    figure = axes_of(made)
    assert figure.axes[0].get_ylim() == axes_of(without).axes[0].get_ylim()
    assert figure.axes[0].get_xlim() == axes_of(without).axes[0].get_xlim()
    crosses = line(figure, "infeasible")
    assert crosses.get_marker() == "x"
    assert len(crosses.get_xdata()) == bad.sum()
    assert all(0.9 < height < 1.0 for height in crosses.get_ydata())
    assert crosses.get_transform() == figure.axes[0].get_xaxis_transform(), "heights of the axes, not of the data"


def test_crosses_of_a_maximized_metric_stand_at_the_worse_edge_the_bottom():
    made = frames(bad_above=2e-2, direction="maximize", sign=-1.0)
    heights = line(axes_of(made), "infeasible").get_ydata()
    assert len(heights) == (made.trials["state"] == "infeasible").sum() > 0
    assert all(0.0 < height < 0.1 for height in heights)


def test_a_far_outlier_is_an_arrow_on_the_edge():
    made = frames()
    made.trials.loc[5, "best_value"] = 1e6
    figure = axes_of(made)
    assert figure.axes[0].get_ylim()[1] < 100
    assert line(figure, "off the scale").get_xdata().tolist() == [made.trials.loc[5, "learning_rate"]]


@pytest.mark.parametrize(("minimize", "expected"), [(True, (0.92, 2.12)), (False, (2.08, 0.88))])
def test_the_scale_runs_from_the_better_to_the_worse_end(minimize, expected):
    table = pd.DataFrame({"state": ["complete"] * 3, "best_value": [1.0, 1.5, 2.0]})
    assert value_limits(table, minimize=minimize) == pytest.approx(expected)


def test_the_legend_names_what_is_drawn_in_any_panel_and_nothing_else():
    """The second trial exists in the second branch's panel alone."""
    space = SearchSpace(optimizer=branches(sgd={"a": uniform(0, 1)}, adamw={"b": uniform(0, 1)}))
    points = [{"optimizer": "sgd", "sgd.a": 0.5}, {"optimizer": "adamw", "adamw.b": 0.5}]
    figure = axes_of(frames_of_values(study(space), points, [0.5, None]))
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"best 3", "infeasible"}


def test_without_a_value_there_is_no_scale_to_read():
    assert axes_of(frames(6, bad_above=0.0)).axes[0].get_yticks().tolist() == []


def test_whole_numbers_have_whole_ticks():
    ticks = axes_of(frames()).axes[2].get_xticks()
    assert len(ticks) > 1
    assert all(float(tick).is_integer() for tick in ticks)


def test_sixty_long_names_can_be_read():
    """Some are left out, the others slanted and shortened in the middle; the CSV has them whole."""
    names = [f"an architecture with a long name, variant {place}" for place in range(60)]
    space = SearchSpace(act=choice(*names))
    made = frames_of_values(study(space), [{"act": name} for name in names], [float(i) for i in range(60)])
    for plot in (AXES, ISOLATION):
        figure, table = plot.draw(made)
        figure.canvas.draw()
        labels = figure.axes[0].get_xticklabels()
        assert (len(labels), labels[1].get_text()) == (12, "an archit…variant 5"), plot.name
        assert labels[0].get_rotation() == 35
        assert set(table["value"]) == set(names)


def test_a_name_is_no_longer_than_its_axis():
    name = "weight_of_the_auxiliary_contrastive_loss_of_the_second_decoder_head"
    made = frames_of_values(study(SearchSpace(**{name: uniform(0, 1)})), [{name: 0.5}], [1.0])
    shown = axes_of(made).axes[0].get_xlabel()
    assert len(shown) < 60
    assert shown.startswith("weight_of_the")
    assert shown.endswith("decoder_head")


def test_the_infeasible_map_shows_the_space_that_was_searched():
    made = frames(12, bad_above=1e-2)
    made.trials["learning_rate"] = made.trials["learning_rate"].clip(lower=1e-3)
    axes = INFEASIBLE.draw(made)[0].axes[0]
    low, high = axes.get_xlim()
    assert low < 1e-4
    assert high > 1e-1


def test_what_exists_in_one_branch_only_breaks_no_line_and_counts_no_point_elsewhere():
    space = SearchSpace(
        optimizer=branches(sgd={"rate": uniform(0, 1), "momentum": uniform(0, 1)}, adamw={"rate": uniform(0, 1)}),
        width=uniform(0, 1),
    )
    points = [
        {"optimizer": "sgd", "sgd.rate": 0.2, "sgd.momentum": 0.3, "width": 0.4},
        {"optimizer": "adamw", "adamw.rate": 0.6, "width": 0.8},
    ]
    made = frames_of_values(study(space), points, [0.1, 0.2])
    names = [hyperparameter.name for hyperparameter in space]
    drawn = PARALLEL.draw(made)[0].axes[0].lines
    assert [names[place] for place in drawn[1].get_xdata()] == ["optimizer", "adamw.rate", "width"]
    assert drawn[1].get_ydata().tolist() == [1.0, 0.6, 0.8]
    made.trials.loc[1, "state"] = "infeasible"
    axes = INFEASIBLE.draw(made)[0].axes[0]
    told = [text.get_text() for text in axes.get_legend().get_texts()]
    assert told == ["complete (0 of 1)", "infeasible (1)"], "of hyperparameters that the infeasible trial has"
    assert {axes.get_xlabel(), axes.get_ylabel()} == {"adamw.rate", "width"}


def test_a_map_without_an_infeasible_trial_says_so():
    figure, _ = INFEASIBLE.draw(frames(12))
    assert empty_because(figure) == "None of 12 finished trials is infeasible."


def test_what_failed_is_not_on_the_map_of_infeasible_trials():
    """D44: a bug is not the point's fault."""
    made = frames(12, bad_above=1e-2)
    bad = made.trials["state"] == "infeasible"
    made.trials.loc[bad[::-1].idxmax(), "state"] = "failed"
    _, table = INFEASIBLE.draw(made)
    assert table["state"].value_counts().to_dict() == {"complete": int((~bad).sum()), "infeasible": int(bad.sum()) - 1}


def test_the_number_beside_a_best_value_counts_the_trials_it_is_the_best_of():
    """D40: two of relu's three are infeasible."""
    space = SearchSpace(act=choice("relu", "tanh"))
    points = [{"act": act} for act in ("relu", "tanh", "relu", "tanh", "relu")]
    figure, _ = ISOLATION.draw(frames_of_values(study(space), points, [0.5, 0.4, None, 0.6, None]))
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "2"]


def test_the_parallel_view_names_the_ends_of_each_axis_and_lists_the_best_first():
    made = frames()
    figure, table = PARALLEL.draw(made)
    ends = [text.get_text() for text in figure.axes[0].texts]
    assert ends == ["0.0001", "0.1", "0", "0.5", "1", "4", "$relu", "tanh$"]
    best = made.complete.sort_values("best_value").iloc[0]
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend[0] == f"trial {best['trial']}: {best['best_value']:.4g}"
    assert table["rank"].max() == 10


def test_boxes_of_the_best_of_n_stand_at_equal_ratios_up_to_all_trials():
    figure, table = BEST_OF_N.draw(frames(40))
    shown = [int(label.get_text()) for label in figure.axes[0].get_xticklabels()]
    assert shown[:3] == [1, 2, 3]
    assert shown[-1] == table["n"].max() == 40
    assert len(shown) <= 16


def test_the_rows_plotted_are_those_of_each_branch():
    space = SearchSpace(
        optimizer=branches(
            sgd={"learning_rate": log_uniform(1e-2, 10)}, adamw={"learning_rate": log_uniform(1e-4, 0.1)}
        )
    )
    points = [{"optimizer": "sgd", "sgd.learning_rate": 1.0}, {"optimizer": "adamw", "adamw.learning_rate": 1e-3}]
    table = axes_frame(frames_of_values(study(space), points, [0.5, 0.4]))
    assert table.groupby("hyperparameter")["trial"].apply(list).to_dict() == {
        "optimizer": [0, 1], "sgd.learning_rate": [0], "adamw.learning_rate": [1],
    }  # fmt: skip
    assert table[table["hyperparameter"] == "optimizer"]["rank"].tolist() == [2, 1]


def test_training_curves_mark_the_chosen_checkpoint():
    steps = [100, 200, 300]
    curves = pd.concat(
        [
            curve(0, steps, [0.5, 0.2, 0.3]),
            curve(0, steps, [0.4, 0.1, 0.0], "training/loss"),
            curve(1, steps, [0.9, 0.8, 0.7]),
        ]
    )
    figure, table = CURVES.draw(frames_of(study(), [record(0), record(1)], curves))
    assert len(figure.axes) == 2
    chosen = line(figure, "chosen checkpoint")
    assert (chosen.get_xdata().tolist(), chosen.get_ydata().tolist()) == ([200], [0.2])
    assert line(figure, "training").get_ydata().tolist() == [0.4, 0.1, 0.0]
    assert len(table) == 9


def test_positive_curves_over_a_wide_span_are_drawn_on_a_log_axis():
    table = pd.DataFrame(
        {
            "rank": 1,
            "trial": 0,
            "split": "validation",
            "metric": "loss",
            "step": [1, 2],
            "value": [10.0, 0.1],
            "chosen": False,
        }
    )
    assert curves_plot(table).axes[0].get_yscale() == "log"
    assert curves_plot(table.assign(value=[1.0, -1.0])).axes[0].get_yscale() == "linear"


def test_a_spike_of_1e30_does_not_flatten_a_curve():
    table = pd.DataFrame(
        {"rank": 1, "trial": 0, "split": "validation", "metric": "loss", "step": range(1, 10),
         "value": [0.5, 1e30, *np.linspace(0.4, 0.3, 7)], "chosen": False}
    )  # fmt: skip
    axes = curves_plot(table).axes[0]
    assert axes.get_yscale() == "linear"
    assert 0.5 < axes.get_ylim()[1] < 1.0


def test_the_legend_of_two_rounds_has_a_line_a_parent_and_a_line_a_stroke():
    """Not one for each of 3 x 20 lines, which left no room for the axes."""
    ends = [
        {"panel": panel, "trial": parent, "parent": parent, "seeds": "fresh", "rate": 1.0, "step": step, "value": 0.5}
        for parent in range(20)
        for panel in ("pairs", "steps")
        for step in (500, 1000)
    ]
    figure = transfer_plot(pd.DataFrame(ends), "validation/loss")
    texts = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert texts == [*(f"trial {n}" for n in range(12)), "and 8 more", "the round before", "same seed", "fresh seeds"]


def test_schedules_are_drawn_over_each_other():
    """Linear to zero in two steps: 1, 1/2; in four: 1, 3/4, 1/2, 1/4, times the base rate."""
    table = schedules_frame({"round 1": (linear().schedule(2), 0.1), "round 2": (linear().schedule(4), 0.2)})
    assert table[table["schedule"] == "round 1"]["learning_rate"].tolist() == pytest.approx([0.1, 0.05])
    assert table["step"].tolist() == [0, 1, 0, 1, 2, 3]
    figure = schedules_plot(table)
    assert list(line(figure, "round 2").get_ydata()) == pytest.approx([0.2, 0.15, 0.1, 0.05])
    assert line(figure, "round 1").get_linestyle() != line(figure, "round 2").get_linestyle()


def test_a_schedule_of_a_billion_steps_is_drawn_by_some_of_them_and_the_ends_of_its_pieces():
    long = constant_then_decay(0.2).schedule(10**9, 1000)
    table = schedules_frame({"long": (long, 1.0)}).set_index("step")["learning_rate"]
    assert len(table) < 2010
    assert (table[999], table[1000], table[10**9 - 1]) == (1.0, 1.0, pytest.approx(5e-9))


@pytest.mark.parametrize("plot", OF_A_STUDY, ids=NAMES)
@pytest.mark.parametrize("file_type", ["png", "svg", "pdf"])
def test_every_plot_can_be_written(plot, file_type, tmp_path):
    rng = np.random.default_rng(0)
    figure, table = plot.draw(frames_of_curves(study(), rng.random((8, 50)).tolist()))
    figure.savefig(tmp_path / f"plot.{file_type}")
    assert (tmp_path / f"plot.{file_type}").stat().st_size > 1000
    assert len(table) > 0


@pytest.mark.parametrize("plot", OF_A_STUDY, ids=NAMES)
def test_a_study_without_completed_trials_has_plots_that_say_so(plot):
    figure, table = plot.draw(frames_of_curves(study(), [[0.5]], {0: State.RUNNING}))
    assert table.empty
    assert empty_because(figure) == plot.absent


def test_a_dollar_sign_in_a_name_is_a_dollar_sign(tmp_path):
    made = frames()
    figure = axes_plot(axes_frame(made), made, title="cost in $ and more $")
    figure.savefig(tmp_path / "plot.svg")
    assert not figure.axes[3].get_xticklabels()[0].get_parse_math()


def test_plots_leave_the_style_alone():
    before = dict(mpl.rcParams)
    axes_of(frames())
    assert dict(mpl.rcParams) == before


def test_plots_need_no_pyplot_and_no_torch():
    program = (
        "import sys; from tuner.plots.catalog import PLOTS\n"
        "assert len(PLOTS) > 10\n"
        "print([name in sys.modules for name in ('matplotlib.pyplot', 'torch')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[False, False]"


def with_pruned_ones():
    """Twelve trials of which four were ended at step 200 of 1,000, one of them without an act of its own value."""
    made = study(SPACE)
    points = [dict(p.values_by_name) for p in quasi_random_points(SPACE, seed=0, start=0, count=12)]
    curves = [(1.0 + 0.1 * place - 0.5 * FRACTIONS).tolist() for place in range(12)]
    curves = [values[:10] if place >= 8 else values for place, values in enumerate(curves)]
    steps = made.budget.evaluation_steps
    records = [
        replace(record(place, point, State.CANCELLED if place >= 8 else State.COMPLETE),
                reason="pruned at step 200" if place >= 8 else "", step=200 if place >= 8 else 1000)
        for place, point in enumerate(points)
    ]  # fmt: skip
    parts = [curve(place, steps[: len(values)], values) for place, values in enumerate(curves)]
    return frames_of(made, records, pd.concat(parts, ignore_index=True))


@pytest.mark.parametrize("plot", [one for one in OF_A_STUDY if one is not INFEASIBLE], ids=lambda plot: plot.name)
def test_pruned_trials_have_a_mark_of_their_own_in_every_plot(plot):
    made = with_pruned_ones()
    figure, table = plot.draw(made)
    marks = [each for axes in figure.axes for each in axes.lines if str(each.get_label()).startswith("pruned")]
    assert sum(len(each.get_xdata()) for each in marks) >= 4
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    told = [text.get_text() for legend in legends for text in legend.get_texts()]
    assert len([text for text in told if text.startswith("pruned")]) == 1
    assert len(table) > 0


def test_the_map_of_infeasible_trials_shows_pruned_ones_beside_them():
    made = with_pruned_ones()
    made.trials.loc[0, "state"] = "infeasible"
    figure, table = INFEASIBLE.draw(made)
    told = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert told == ["complete (7)", "infeasible (1)", "pruned (4)"]
    assert table["state"].value_counts().to_dict() == {"complete": 7, "pruned": 4, "infeasible": 1}


def test_none_is_a_choice_that_is_drawn_and_counted():
    space = SearchSpace(clip=choice(None, 1.0), size=choice(16, None))
    points = [{"clip": clip, "size": size} for clip in (None, 1.0) for size in (16, None)]
    made = frames_of_values(study(space), points, [0.1, 0.2, 0.3, 0.4])
    table = axes_frame(made)
    assert table["hyperparameter"].value_counts().to_dict() == {"clip": 4, "size": 4}
    axes_of(made)
    _, isolated = ISOLATION.draw(made)
    assert isolated["complete"].tolist() == [2, 2, 2, 2]
