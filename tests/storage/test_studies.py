"""A study is started once; going on with it under another declaration is an error that names the keys."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
from sqlalchemy import text

from tuner.budget.by_share import by_share
from tuner.budget.families import cosine, exponential, pieces, polynomial, step_drops
from tuner.budget.schedules import ScheduleFamily
from tuner.budget.step_budget import StepBudget
from tuner.design.hyperparameters import Range, choice, log_uniform, uniform
from tuner.design.points import Point
from tuner.design.space import SearchSpace, branches
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import StorageError, StudyChanged
from tuner.records import State
from tuner.records.conclusions import FusionChoice, FusionChoices, RegimeVerdict, StudyProfile
from tuner.rounds.plan import trial_at
from tuner.storage.codec import point_from, point_text, schedule_from, study_from, study_text
from tuner.storage.store import Ledger, open_ledger


def with_space(study: Study, **declared: object) -> Study:
    """The study with some hyperparameters declared differently; None leaves one out."""
    given = {h.name: h.domain for h in study.hyperparameters} | dict(study.fixed) | declared
    space = SearchSpace(**{name: domain for name, domain in given.items() if domain is not None})
    return replace(study, hyperparameters=space.hyperparameters, fixed=space.fixed)


def test_a_study_comes_back_as_it_was_declared(ledger: Ledger, study: Study) -> None:
    ledger.start_study("digits", study, "code and data")
    row = ledger.study("digits", "round-1")
    assert row.study == study
    assert (row.campaign, row.fingerprint, row.created > 1e9) == ("digits", "code and data", True)


@pytest.mark.parametrize(
    "space",
    [
        SearchSpace(optimizer=branches(sgd={"learning_rate": log_uniform(1e-3, 10)}, adamw={"epsilon": 1e-8})),
        SearchSpace(mixed=choice(None, True, 1.5, "1", off=None, family="regularization"), constant=None),
        SearchSpace(),
    ],
)
def test_every_kind_of_space_survives(study: Study, space: SearchSpace) -> None:
    declared = replace(study, hyperparameters=space.hyperparameters, fixed=space.fixed, fitted_when=None, round=None)
    read = study_from(study_text(declared))
    assert read == declared
    assert repr(read.fixed) == repr(declared.fixed)


FAMILIES = [
    polynomial(3.0, final=0.1),
    exponential(0.05),
    step_drops((1 / 3, 0.8), factor=0.3),
    pieces(("constant", 0.5), ("polynomial", 0.3, 0.1, 2.0), ("constant", 0.2)),
    by_share(lambda share: math.exp(-3.0 * share) if share < 0.7 else 0.01),
]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_kind_of_schedule_comes_back_with_its_rates(ledger: Ledger, study: Study, family: ScheduleFamily) -> None:
    declared = replace(study, schedule=family)
    trial = trial_at(declared, 0, Point.of({"learning_rate": 0.1, "dropout": 0.0}), "by hand")
    ledger.start_study("digits", declared, "f", trials=[trial])
    row = ledger.study("digits", "round-1")
    assert row.study.schedule == family
    (record,) = ledger.trials(row.study_id)
    assert record.schedule == trial.schedule
    assert record.schedule is not None
    assert record.schedule.fractions() == family.schedule(100, declared.warmup_steps).fractions()
    ledger.start_study("digits", declared, "f")


def test_a_changed_schedule_function_is_refused_and_the_place_is_shown(ledger: Ledger, study: Study) -> None:
    was = by_share(lambda share: math.exp(-3.0 * share))
    now = by_share(lambda share: math.exp(-3.0 * share) if share < 0.7 else 0.01)
    assert len(repr(was.curve)) > 2000
    ledger.start_study("digits", replace(study, schedule=was), "f")
    with pytest.raises(StudyChanged, match=r"schedule\.curve: was .*, is now ") as told:
        ledger.start_study("digits", replace(study, schedule=now), "f")
    assert all(len(line) < 600 for line in str(told.value).splitlines()), "it is read on a terminal"
    renamed = by_share(lambda position: math.exp(-3.0 * position))
    ledger.start_study("digits", replace(study, schedule=renamed), "f")


def test_a_schedule_of_damaged_numbers_is_refused_when_it_is_read(study: Study) -> None:
    text = study_text(replace(study, schedule=by_share(lambda share: 1.0 - 0.5 * share)))
    with pytest.raises(StorageError, match="a curve is ascending shares of training"):
        study_from(text.replace('"curve": [0.0,', '"curve": [0.3, 0.2, 0.0,'))
    with pytest.raises(StorageError, match="a curve is ascending shares of training"):
        schedule_from('{"pieces": [{"shape": "curve", "steps": 5, "start": 1.0, "end": 0.5, "values": [0, 1, 2]}]}')


def test_a_study_of_a_version_that_did_not_know_the_number_of_examples_goes_on(ledger: Ledger, study: Study) -> None:
    first = ledger.start_study("digits", study, "f")
    again = ledger.start_study("digits", replace(study, num_examples=1000), "f")
    assert again == first
    assert again.study.length_in_words == "100 steps", "what is not known is not shown"
    known = replace(study, name="round-2", num_examples=1000, batch_size=300)
    assert ledger.start_study("digits", known, "f").study.length_in_words == "100 steps (33.3 epochs)"
    ledger.start_study("digits", replace(known, num_examples=999), "f")  # the digest of the data compares the data


def test_the_types_and_the_order_of_a_point_survive() -> None:
    point = Point.of({"z": True, "a": 1, "m": 1.0, "n": None, "s": "1", "tiny": 5e-324})
    assert repr(point_from(point_text(point))) == repr(point)


def test_starting_again_is_going_on(ledger: Ledger, study: Study) -> None:
    first = ledger.start_study("digits", study, "before")
    again = ledger.start_study("digits", study, "after an edit")
    assert again == first
    assert len(ledger.studies("digits")) == 1


def test_only_the_number_of_trials_may_grow(ledger: Ledger, study: Study) -> None:
    first = ledger.start_study("digits", study, "f")
    grown = ledger.start_study("digits", replace(study, num_trials=8), "f")
    assert (grown.study_id, grown.study.num_trials) == (first.study_id, 8)
    assert ledger.study("digits", "round-1").study.num_trials == 8
    with pytest.raises(StudyChanged, match="num_trials: was 8, is now 4"):
        ledger.start_study("digits", study, "f")


def changes(study: Study) -> dict[str, Study]:
    reordered = replace(study, hyperparameters=study.hyperparameters[::-1])
    return {
        "hyperparameters.learning_rate.high: was 0.1, is now 1.0": with_space(
            study, learning_rate=log_uniform(1e-4, 1.0)
        ),
        "hyperparameters.dropout: was .*, is now not declared": with_space(study, dropout=None),
        "hyperparameters.mixup: was not declared, is now .*": with_space(study, mixup=uniform(0.0, 1.0)),
        'hyperparameters.activation.choices: was ."relu", "tanh"., is now ."relu", "gelu".': with_space(
            study, activation=choice("relu", "gelu")
        ),
        r"hyperparameters \(order\): was learning_rate, .*, is now activation, ": reordered,
        "fixed.momentum.value: was 0.9, is now 0.95": with_space(study, momentum=0.95),
        "budget.max_train_steps: was 100, is now 200": replace(study, budget=StepBudget(200, 10)),
        'schedule.name: was "constant_then_decay", is now "cosine"': replace(study, schedule=cosine()),
        "fitted_when: was {.*}, is now null": replace(study, fitted_when=None),
        "augment: was true, is now false": replace(study, augment=False),
        'objective.direction: was "minimize", is now "maximize"': replace(
            study, objective=replace(study.objective, direction="maximize")
        ),
    }


@pytest.mark.parametrize("index", range(11))
def test_what_was_declared_differently_is_named(ledger: Ledger, study: Study, index: int) -> None:
    message, changed = list(changes(study).items())[index]
    ledger.start_study("digits", study, "f")
    with pytest.raises(StudyChanged, match=message) as raised:
        ledger.start_study("digits", replace(changed, num_trials=8), "f")
    assert "give the campaign another name" in str(raised.value)
    assert "num_trials:" not in str(raised.value)
    assert ledger.study("digits", "round-1").study == study


def test_bounds_of_integers_are_no_difference(ledger: Ledger, study: Study) -> None:
    ledger.start_study("digits", study, "f")
    ledger.start_study("digits", with_space(study, width=Range(1.0, 8.0, integer=True)), "f")


def test_the_same_study_may_be_started_in_another_campaign(ledger: Ledger, study: Study) -> None:
    for name in ("digits", "'; DROP TABLE trial; --", "Ziffern \U0001f600"):
        assert ledger.start_study(name, study, "f").study == study
    assert ledger.campaigns() == sorted(["digits", "'; DROP TABLE trial; --", "Ziffern \U0001f600"])


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 201, "\ud800"])
def test_campaign_names_no_database_can_hold_are_refused(ledger: Ledger, study: Study, name: str) -> None:
    with pytest.raises(StorageError, match="the name of a campaign is text of 1 to 200 characters without NUL, got"):
        ledger.start_study(name, study, "f")
    assert ledger.campaigns() == []


def test_what_does_not_exist_is_answered_with_what_does(ledger: Ledger, study: Study) -> None:
    with pytest.raises(StorageError, match="there is no campaign 'digits'; there is none yet: start one with"):
        ledger.studies("digits")
    ledger.start_study("digits", study, "f")
    with pytest.raises(StorageError, match="there is no campaign 'digit'; did you mean 'digits'"):
        ledger.study("digit", "round-1")
    with pytest.raises(StorageError, match="there is no study 'sweep' in campaign 'digits'; there is 'round-1'"):
        ledger.study("digits", "sweep")


def test_an_unreadable_study_is_named(ledger: Ledger, study: Study) -> None:
    ledger.start_study("digits", study, "f")
    with ledger._database.writing() as connection:
        connection.execute(text("UPDATE study SET declaration = '{\"name\": 3}'"))
    with pytest.raises(StorageError, match="study 'round-1' of 'digits' is unreadable in the Ledger: name"):
        ledger.studies("digits")


def test_planned_trials_are_planned_once(ledger: Ledger, study_id: int, make_trial: Callable[..., Trial]) -> None:
    assert ledger.plan_trials(study_id, [make_trial(number) for number in range(6)]) == 2
    assert ledger.plan_trials(study_id, [make_trial(number, "other") for number in range(6)]) == 0
    assert ledger.plan_trials(study_id, []) == 0
    assert [record.number for record in ledger.trials(study_id)] == list(range(6))
    record, planned = ledger.trial(study_id, 5), make_trial(5)
    assert (record.point, record.schedule, record.seed) == (planned.point, planned.schedule, planned.seed)
    assert ledger.state_counts(study_id) == dict.fromkeys(State, 0) | {State.WAITING: 6}
    with pytest.raises(StorageError, match="there is no trial 6 in this study, which has 6"):
        ledger.trial(study_id, 6)


def test_the_newest_conclusion_of_a_kind_holds(ledger: Ledger, study_id: int) -> None:
    assert ledger.conclusion("digits", RegimeVerdict) is None
    ledger.conclude("digits", RegimeVerdict("undecided", "undecided"))
    ledger.conclude("digits", RegimeVerdict("compute_bound", "undecided"))
    ledger.conclude("digits", RegimeVerdict("of the study", ""), study_id)
    assert ledger.conclusion("digits", RegimeVerdict) == RegimeVerdict("compute_bound", "undecided")
    assert ledger.conclusion("digits", RegimeVerdict, study_id) == RegimeVerdict("of the study", "")
    with pytest.raises(StorageError, match="the Ledger keeps JSON"):
        ledger.conclude("digits", RegimeVerdict(object(), ""))
    with pytest.raises(StorageError, match="there is no campaign 'letters'"):
        ledger.conclude("letters", RegimeVerdict("", ""))


def test_of_two_who_conclude_once_at_the_same_moment_the_first_is_believed_by_both(
    ledger: Ledger, study_id: int, url: str
) -> None:
    def ask(number: int) -> object:
        with open_ledger(url) as mine:
            together.wait()
            return mine.conclude_once("digits", StudyProfile(str(number))).profile

    together = Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(ask, range(8)))
    stands = ledger.conclusion("digits", StudyProfile)
    assert stands is not None
    assert answers == {stands.profile}
    with pytest.raises(StorageError, match="there is no campaign 'letters'"):
        ledger.conclude_once("letters", StudyProfile(""))


def test_a_conclusion_that_says_the_same_again_is_not_written_again(ledger: Ledger, study_id: int) -> None:
    """A command that is repeated concludes the same; what comes back after something else is news."""
    for verdict in ("one", "one", "two", "one"):
        ledger.conclude("digits", RegimeVerdict(verdict, ""))
        ledger.conclude("digits", RegimeVerdict("of the study", ""), study_id)
    with ledger._database.reading() as connection:
        count = connection.exec_driver_sql("select count(*) from conclusion group by study_id order by 1").scalars()
        assert list(count) == [1, 3]


def test_what_several_add_to_a_conclusion_at_the_same_moment_is_all_kept(
    ledger: Ledger, study_id: int, url: str
) -> None:
    def add(number: int) -> None:
        with open_ledger(url) as mine:
            together.wait()
            mine.add_fusion("digits", {f"group {number}": FusionChoice(number, "")}, (study_id, None))

    together = Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    everything = FusionChoices({f"group {number}": FusionChoice(number, "") for number in range(8)})
    assert ledger.conclusion("digits", FusionChoices, study_id) == everything
    assert ledger.conclusion("digits", FusionChoices) == everything


def test_each_launch_is_written_down(ledger: Ledger, study_id: int) -> None:
    for command in ("tuner launch digits.py", "tuner run digits.py"):
        ledger.add_launch(
            study_id,
            command=command,
            revision={"commit": "abc", "changed": True},
            environment={"threads": 2},
            worker="w",
        )
    first, second = ledger.launches(study_id)
    assert (first.command, second.command) == ("tuner launch digits.py", "tuner run digits.py")
    assert (first.revision, first.environment, first.worker) == (
        {"commit": "abc", "changed": True},
        {"threads": 2},
        "w",
    )
    assert first.launch_id < second.launch_id
