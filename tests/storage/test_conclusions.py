"""Conclusions as the Ledger keeps them: every kind comes back equal, old rows are read, damage is one clear error."""

import json
import math
from dataclasses import fields, replace

import pytest
from sqlalchemy import text

from tuner.design.study import Study
from tuner.errors import StorageError
from tuner.records.budget_origin import DECLARED, NOT_RECORDED, BudgetOrigin
from tuner.records.conclusions import (
    CONCLUSIONS,
    Adoption,
    BudgetRecord,
    Conclusion,
    CurveStudies,
    FinalScore,
    FiniteValidation,
    FoundInputs,
    FusionChoice,
    FusionChoices,
    InputSet,
    Launcher,
    LoopPromises,
    RegimeVerdict,
    Retention,
    SecondTry,
    Selected,
    StabilityStudies,
    StageLeaks,
    StageStart,
    StudyNumerics,
    StudyProfile,
    SweepConclusion,
    TrainingInputs,
)
from tuner.records.sweep_outcomes import Fitted, Invalid, NotFitted, Reason
from tuner.storage.codec import conclusion_from, conclusion_text
from tuner.storage.store import Ledger

ADOPTED = Adoption(
    "round-2 trial 0", "round-1 trial 3", "adopt", 0.25, 0.125, None, 0.8, 0.0, 5, "minimize validation/loss"
)
EVERY_KIND = [
    RegimeVerdict("compute_bound", "undecided"),
    StudyProfile("fast"),
    StudyNumerics('{"threads": 1}'),
    FusionChoices({"mlp 2": FusionChoice(8, "it pays", {"linear": "rule"}, 0.25, "identical", '{"threads": 1}')}),
    BudgetRecord(BudgetOrigin("sweep", factor=2.0, steps=276), "sweep-1-grid", {"batch_size": "64"}),
    SweepConclusion("sweep-1", 2.0, Fitted(0.3, 90, 100, 400, True, (1.0,), (120, 140), 1, 80, None)),
    SweepConclusion("sweep-1", 1.5, NotFitted(250, (Reason("too_few_steps", "likely", "it falls"),), 0.1, 0.25)),
    SweepConclusion("sweep-2", 1.5, NotFitted(250, (Reason("all_diverged", "likely", "too high"),), None, None)),
    SweepConclusion("sweep-3", 2.0, Invalid("upper", 1.0, 40, (0.1, 1.0, 10.0), ambiguous=True)),
    FinalScore("round-2", 3, 540, "validation/loss", 0.25, {"loss": 0.5}, 1000, "0" * 64),
    Retention(("latest", "trunk")),
    ADOPTED,
    CurveStudies(("curve-a-250", "curve-a-500")),
    StabilityStudies("stability-round-1-trial-3-2x-500", ("stability-round-1-trial-3-warmup-10-to-20x",)),
    FiniteValidation("132a824c53346a72", "validation/loss"),
    SecondTry((0, 7)),
    LoopPromises("f" * 64, "{}", True, {"deterministic": True}, {"prefixes": "it reads trial.max_train_steps"}),
    Launcher("host:7:abcdef01", at_work=True),
    StageStart((Selected("0" * 64, 3, campaign="pre", study="round-2", trial=1, step=90, steps=120),), "encoder.*"),
    TrainingInputs((InputSet.of("pre", bytes(range(16)), 2**64 - 1, 2, None),)),
    StageLeaks((FoundInputs("pre", 3, 40, 50, 2, None), FoundInputs("first", why="not recorded"))),
]
# What versions before 0.2 wrote, key by key, and what it means.
OLD_ROWS = [
    ('{"origin": "as it was started"}', BudgetRecord(BudgetOrigin("words", words="as it was started"))),
    ('{"origin": "", "source": null, "basis": {}}', BudgetRecord(NOT_RECORDED)),
    ('{"origin": "as round-1", "source": "round-1", "basis": {"batch_size": "8"}}',
     BudgetRecord(BudgetOrigin("words", words="as round-1"), "round-1", {"batch_size": "8"})),
    ('{"verdict": "undecided", "evidence": "undecided"}', RegimeVerdict("undecided", "undecided")),
    ('{"profile": "exact"}', StudyProfile("exact")),
    ('{"sgd": {"trials": 4, "reason": "it pays", "ways": {}}}', FusionChoices({"sgd": FusionChoice(4, "it pays")})),
    ('{"outcome": "invalid", "direction": "lower", "learning_rate": 0.1, "bound": 40, "extended_grid": [0.01, 0.1], '
     '"ambiguous": false, "name": "sweep-1", "margin": 2.0}',
     SweepConclusion("sweep-1", 2.0, Invalid("lower", 0.1, 40, (0.01, 0.1)))),
    ('{"validation data": null, "by": "validation/loss"}', FiniteValidation(None, "validation/loss")),
    ('{"trials": [1, 3]}', SecondTry((1, 3))),
    ('{"order": ["latest", "trunk", "best"]}', Retention(("latest", "trunk", "best"))),
    ('{"studies": ["a", "b"]}', CurveStudies(("a", "b"))),
    ('{"candidate": "round-2 trial 0", "baseline": "round-1 trial 3", "verdict": "adopt", "gain": 0.25, "low": 0.125, '
     '"high": null, "level": 0.8, "minimum_gain": 0.0, "replicates": 5, "metric": "minimize validation/loss"}',
     ADOPTED),
]  # fmt: skip


@pytest.mark.parametrize("concluded", EVERY_KIND, ids=lambda one: one.KIND)
def test_every_conclusion_comes_back_as_it_was_written(concluded: Conclusion) -> None:
    assert conclusion_from(type(concluded), conclusion_text(concluded)) == concluded


def test_every_kind_is_in_the_list_once_and_under_the_name_that_databases_know() -> None:
    assert {type(one) for one in EVERY_KIND} == set(CONCLUSIONS.values())
    assert set(CONCLUSIONS) == {
        "regime", "profile", "fusion", "budget", "sweep", "test_score", "retention", "adoption", "budget_curve",
        "stability", "numerics",
        "finite validation", "launcher", "second_try", "loop promises", "start", "training inputs", "stage leaks",
    }  # fmt: skip


@pytest.mark.parametrize(("text", "meaning"), OLD_ROWS, ids=lambda one: getattr(one, "KIND", ""))
def test_what_older_versions_wrote_is_read(text: str, meaning: Conclusion) -> None:
    assert conclusion_from(type(meaning), text) == meaning


@pytest.mark.parametrize("concluded", EVERY_KIND, ids=lambda one: one.KIND)
def test_a_value_of_another_type_is_named_in_the_error(concluded: Conclusion) -> None:
    whole = json.loads(conclusion_text(concluded))
    for key in whole:
        with pytest.raises(StorageError, match=r"got|is none of"):
            conclusion_from(type(concluded), json.dumps(whole | {key: {"strange": [math.pi]}}))


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (RegimeVerdict, '{"evidence": "undecided"}', "verdict: Field required"),
        (SweepConclusion, '{"outcome": "maybe", "name": "sweep-1", "margin": 2}', "outcome: 'maybe' is none of fitted"),
        (SweepConclusion, '{"outcome": "fitted", "name": "sweep-1", "margin": 2}', "learning_rate: Field required"),
        (BudgetRecord, '{"origin": {"by": "nobody"}}', "origin.by: Input should be"),
        (FusionChoices, '{"sgd": 4}', "got 4"),
        (SecondTry, '{"trials": ["seven"]}', "trials.0: "),
        (StudyProfile, "[1]", "a JSON object was stored, got list"),
        (StudyProfile, "{", "no JSON"),
    ],
)
def test_damage_is_one_clear_error(kind: type[Conclusion], text: str, words: str) -> None:
    with pytest.raises(StorageError) as error:
        conclusion_from(kind, text)
    assert words in str(error.value)


def damage(ledger: Ledger, kind: type[Conclusion], study_id: int, data: str = '{"by": 4, "order": [[]]') -> None:
    """The newest conclusion of a kind about a study is replaced by what nobody can read."""
    with ledger._database.writing() as connection:
        connection.execute(
            text("UPDATE conclusion SET data = :data WHERE kind = :kind AND study_id = :study_id"),
            {"data": data, "kind": kind.KIND, "study_id": study_id},
        )


@pytest.mark.parametrize("concluded", EVERY_KIND, ids=lambda one: one.KIND)
def test_only_what_saves_time_is_missing_where_it_is_damaged_and_all_else_is_an_error(
    concluded: Conclusion, ledger: Ledger, study_id: int, caplog: pytest.LogCaptureFixture
) -> None:
    kind = type(concluded)
    ledger.conclude("digits", concluded, study_id)
    damage(ledger, kind, study_id)
    if kind.ONLY_SAVES_TIME:
        assert kind in (FusionChoices, FiniteValidation, Launcher, LoopPromises, StudyNumerics, TrainingInputs)
        assert ledger.conclusion("digits", kind, study_id) is None
        assert f"'digits' ({kind.KIND}) is unreadable" in caplog.text
        assert "nothing rests on it" in caplog.text
    else:
        with pytest.raises(StorageError, match=r"unreadable in the Ledger.*restore a backup"):
            ledger.conclusion("digits", kind, study_id)


def test_what_was_found_out_again_replaces_the_damaged_record(
    ledger: Ledger, study: Study, study_id: int, caplog: pytest.LogCaptureFixture
) -> None:
    known, finite = FusionChoice(4, "it pays"), FiniteValidation("132a824c53346a72", "validation/loss")
    ledger.add_fusion("digits", {"mlp": known}, (study_id, None))
    ledger.conclude("digits", finite, study_id)
    for kind in (FusionChoices, FiniteValidation):
        damage(ledger, kind, study_id)
    ledger.add_fusion("digits", {"cnn": known}, (study_id, None))
    assert ledger.conclusion("digits", FusionChoices, study_id) == FusionChoices({"cnn": known})
    assert ledger.conclusion("digits", FusionChoices) == FusionChoices({"mlp": known, "cnn": known}), "it was whole"
    (row,) = ledger.studies("digits")
    budget = BudgetRecord(DECLARED)
    ledger.start_study("digits", study, row.fingerprint, concluded=(budget, finite))
    assert ledger.conclusion("digits", FiniteValidation, study_id) == finite
    caplog.clear()
    ledger.start_study("digits", study, row.fingerprint, concluded=(BudgetRecord(NOT_RECORDED), finite))
    assert ledger.conclusion("digits", BudgetRecord, study_id) == budget, "what stands is left alone"
    assert not caplog.records
    told = ledger.unreadable_rows(row)
    assert len(told) == 2
    assert all("found out again when it is needed" in one for one in told)


def test_a_sweep_keeps_the_json_of_before() -> None:
    """Programs read the table, too: the outcome's fields lie beside the name, under a tag."""
    kept = json.loads(conclusion_text(SweepConclusion("sweep-1", 2.0, Fitted(0.3, 90, 100, 400))))
    assert (kept.pop("outcome"), kept.pop("name"), kept.pop("margin")) == ("fitted", "sweep-1", 2.0)
    assert set(kept) == {field.name for field in fields(Fitted)}


@pytest.mark.parametrize(
    ("origin", "sentence"),
    [
        (DECLARED, "declared in the study file"),
        (BudgetOrigin("command_line"), "given on the command line"),
        (BudgetOrigin("sweep", factor=2.0, steps=1276), "2 times the 1,276 steps to fit that the sweep found (A18)"),
        (
            BudgetOrigin("production", factor=0.1, steps=10_000),
            "10% of the production length of 10,000 steps (A30)",
        ),
        (
            BudgetOrigin("too_long", "round-1", "too_long", 1.5, 1000),
            "best steps of round-1 are too_long: 1.5 times the latest of the good best steps (A14)",
        ),
        (
            BudgetOrigin("too_short", "round-1", "mixed", 2, 1000),
            "best steps of round-1 are mixed: 2 times the 1,000 steps decide it (A15)",
        ),
        (BudgetOrigin("best_steps", "round-1", "ok", 1, 1000), "best steps of round-1 are ok: the same 1,000 steps"),
        (BudgetOrigin("study", "round-1"), "as round-1"),
        (BudgetOrigin("curve"), "a length of the curve"),
        (BudgetOrigin("started"), "as it was started"),
        (BudgetOrigin("assumed"), "assumed until the sweep has found the steps to fit"),
        (BudgetOrigin("elsewhere", words="Optuna"), "of the trials as they were trained elsewhere: Optuna"),
        (BudgetOrigin("words", words="{steps} as {0}"), "{steps} as {0}"),
        (NOT_RECORDED, "not recorded when the study was started"),
    ],
)
def test_the_origin_of_a_budget_is_one_sentence(origin: BudgetOrigin, sentence: str) -> None:
    assert origin.sentence == sentence
    stored = conclusion_from(BudgetRecord, conclusion_text(BudgetRecord(origin)))
    assert replace(stored.origin).sentence == sentence
