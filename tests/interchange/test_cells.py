"""Choices of any plain type, as cells of a table and back."""

import csv
import io
import json
import math

import pandas as pd
import pytest
from analysis.handmade import curve, record
from hypothesis import given, settings
from hypothesis import strategies as some
from support.needs import require

from benchmarks.synthetic import study as synthetic_study
from tuner.analysis.frames import frames_of
from tuner.design.hyperparameters import Choice, Hyperparameter, choice, integers, log_uniform, uniform
from tuner.design.space import SearchSpace, branches
from tuner.errors import DeclarationError
from tuner.interchange.cells import choice_cell, choice_of, numbers_in, with_choice_cells
from tuner.interchange.table_space import ABSENT, read_space, value_of
from tuner.interchange.tables_in import TableTerms, imported_from_tables
from tuner.interchange.tables_out import export_tables
from tuner.security import safe_cell

AWKWARD = (
    None, 1, True, "1", 1.0, "", "None", "nan", "a, b", "=c", "'=c", "-1", -1, "true", "True", False, 0, '"1"', " x ",
    "(64, 64)", "null", "<NA>", "1e3", 1000, 1000.5, "line\nbreak", "ü", "x'", "NaN", "[1]", 16, "16.0", 1e-05,
)  # fmt: skip
values = some.one_of(some.sampled_from(AWKWARD), some.text(max_size=6), some.integers(-5, 5), some.floats(-5, 5))


def through_csv(cell):
    """As a spreadsheet or pandas keeps it: a cell of a CSV file."""
    file = io.StringIO()
    csv.writer(file).writerow(["x", safe_cell(cell)])
    return next(csv.reader(io.StringIO(file.getvalue(), newline="")))[1]


def same(one, other):
    return repr(one) == repr(other)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(some.lists(values, min_size=2, max_size=8, unique_by=repr))
def test_every_choice_comes_back_from_its_cell(choices):
    for value in choices:
        assert same(choice_of(through_csv(choice_cell(value, choices)), choices, ""), value)


def test_all_awkward_choices_together_come_back_from_their_cells():
    cells = [choice_cell(value, AWKWARD) for value in AWKWARD]
    assert len(set(cells)) == len(cells)
    assert "" not in cells, "an empty cell is a hyperparameter that does not exist"
    for value, cell in zip(AWKWARD, cells, strict=True):
        assert same(choice_of(through_csv(cell), AWKWARD, ""), value)


@pytest.mark.parametrize(
    ("choices", "cells"),
    [
        ([16, 32], {"16.0": 16, "32": 32, "1.6e1": 16, " 32 ": 32}),  # pandas, where one cell of the column is empty
        ([0.001, 0.01], {"1e-3": 0.001, "0.010": 0.01, "0.0010000000000000002": 0.001}),
        ([True, False], {"True": True, "false": False, "TRUE": True, "1.0": True, "0": False}),
        (["true", "false"], {"True": "true", "FALSE": "false"}),
        ([None, 1.0], {"None": None, "null": None, "nan": None, "": None, "1": 1.0}),
        ([None, "None"], {"None": "None", "null": None}),
        (["", "x"], {"": "", "x": "x"}),
        ([1, True, "1"], {"1": 1, "true": True, '"1"': "1"}),
        (["(64, 64)", "(128,)"], {"[64,64]": "(64, 64)", "(128)": "(128,)", "(128,)": "(128,)"}),
        (["NA", "relu"], {"NA": "NA"}),
        (["=a", "'=a"], {"'=a": "'=a", "=a": "=a"}),
    ],
)
def test_what_other_tools_make_of_a_choice_is_read(choices, cells):
    declared = Hyperparameter("x", Choice(tuple(choices)))
    for cell, value in cells.items():
        assert same(value_of(declared, cell, "trial 0"), value), cell


def test_cells_that_mean_nothing_or_two_things_are_errors_or_not_known():
    assert value_of(Hyperparameter("x", choice("a", "b")), "", "") is ABSENT
    assert value_of(Hyperparameter("x", choice("a", None)), "<NA>", "") is ABSENT
    assert value_of(Hyperparameter("x", uniform(0, 1)), "nan", "") is ABSENT
    with pytest.raises(DeclarationError, match=r"trial 3 is empty.*write null or \"\""):
        value_of(Hyperparameter("x", choice("", None)), "", "trial 3")
    with pytest.raises(DeclarationError, match=r"'1\.00' could be 1 or true"):
        choice_of("1.00", [1, True], "trial 3")
    with pytest.raises(DeclarationError, match="trial 3: 'c' is not among the choices a, null, 1 of the space file"):
        choice_of("c", ["a", None, 1], "trial 3")
    assert value_of(Hyperparameter("x", integers(1, 2**53)), str(2**53 - 1), "") == 2**53 - 1


def test_numbers_divergences_and_empty_cells_are_three_things():
    cells = ["1", "-Inf", "nan", "", "None", "Infinity", "NaN", "1e400", "-nan", "<NA>", "1.#INF", "0x", "2"]
    numbers, empty = numbers_in(pd.Series(cells[:11], dtype=object), "value")
    assert empty.tolist() == [cell in ("", "None", "<NA>") for cell in cells[:11]]
    assert numbers[[0, 1, 5, 7, 10]].tolist() == [1.0, -math.inf, math.inf, math.inf, math.inf]
    with pytest.raises(DeclarationError, match="value in row 13 is no number: '0x'"):
        numbers_in(pd.Series(cells), "value")


SPACE = SearchSpace(
    kind=choice(*AWKWARD), clip=choice(None, 1.0), width=choice(16, 32),
    optimizer=branches(
        sgd={"nesterov": choice(True, False), "layers": integers(1, 4)}, adam={"amsgrad": choice(None, "x")}
    ),
)  # fmt: skip


def points():
    found = []
    for number, value in enumerate(AWKWARD):
        point = {"kind": value, "clip": [None, 1.0][number % 2], "width": [16, 32][number % 2]}
        if number % 3:
            point |= {"optimizer": "sgd", "sgd.nesterov": bool(number % 2), "sgd.layers": 1 + number % 4}
        else:
            point |= {"optimizer": "adam", "adam.amsgrad": [None, "x"][number % 2]}
        found.append(point)
    return found


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_points_of_every_type_survive_export_and_import(tmp_path, form):
    if form == "parquet":
        require("pyarrow")
    study = synthetic_study(SPACE, steps=20, evaluations=2)
    records = [record(number, point) for number, point in enumerate(points())]
    curves = pd.concat(
        [curve(number, [10, 20], [0.5, math.nan if number == 3 else 0.25]) for number in range(len(records))]
    )
    frames = frames_of(study, records, curves)
    export_tables(frames, tmp_path, form)
    back = imported_from_tables(tmp_path, None, None, TableTerms(study.objective.metric, "minimize", 20))
    read = {one.trial.number: dict(one.trial.point.values_by_name) for one in back.trials}
    for number, point in enumerate(points()):
        assert list(read[number]) == [h.name for h in SPACE if h.name in point]
        assert all(same(read[number][name], value) for name, value in point.items()), (read[number], point)
    ends = [[m.value for m in one.measurements] for one in back.trials]
    assert [repr(end) for end in ends] == ["[0.5, nan]" if n == 3 else "[0.5, 0.25]" for n in range(len(records))]
    again = frames_of(back.study, records, curves)
    export_tables(again, tmp_path / "again", form)
    assert (tmp_path / "again" / f"points.{form}").read_bytes() == (tmp_path / f"points.{form}").read_bytes()


def test_a_table_shows_none_and_what_does_not_exist_differently():
    study = synthetic_study(SPACE, steps=20, evaluations=2)
    made = frames_of(study, [record(n, point) for n, point in enumerate(points())], curve(0, [], []))
    shown = with_choice_cells(made.trials, SPACE.hyperparameters, none="None")
    assert shown["clip"].tolist()[:2] == ["None", "1.0"]
    assert shown["adam.amsgrad"].tolist()[:4] == ["None", None, None, "x"]
    assert shown["kind"].tolist()[:6] == ["null", "1", "true", '"1"', "1.0", '""'], "where a text is None, null is None"


@pytest.mark.parametrize(
    ("declared", "domain"),
    [
        ({"kind": "categorical", "choices": ["a", None]}, choice("a", None)),
        ({"values": [16, 32]}, choice(16, 32)),
        ({"distribution": "uniform", "min": 0.0, "max": 0.5}, uniform(0, 0.5)),
        ({"kind": "loguniform", "low": 0.001, "high": 1.0}, log_uniform(0.001, 1)),
        ({"distribution": "log_uniform_values", "min": 0.001, "max": 1.0}, log_uniform(0.001, 1)),
        ({"type": "integer", "low": 1, "high": 4}, integers(1, 4)),
        ({"kind": "bool"}, choice(False, True)),
        ({"kind": "choice", "choices": [[64, 64], [128]]}, choice("[64, 64]", "[128]")),
    ],
)  # fmt: skip
def test_words_of_other_tools_are_understood_in_a_space_file(tmp_path, declared, domain):
    path = tmp_path / "space.json"
    path.write_text(json.dumps({"x": declared}))
    (found,) = read_space(path)
    assert found.domain == domain


def test_a_space_file_says_what_is_wrong_with_it(tmp_path):
    path = tmp_path / "space.json"
    for kind, told in (
        ("categoricl", "did you mean categorical?"),
        ("randint", "upper limit is left out"),
        (3, ""),
    ):
        path.write_text(json.dumps({"x": {"kind": kind, "low": 1, "high": 2}}))
        with pytest.raises(DeclarationError, match=f"x: kind is one of float, int, choice, got .*{told}"):
            read_space(path)
    with pytest.raises(DeclarationError, match=r"there is no file .*spaces.json; did you mean .*space.json\?"):
        read_space(tmp_path / "spaces.json")
