"""What is left of the studies of some campaigns, in one statement: worked by hand, one state after the other."""

from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import event

from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.records import Claim, State, TrialUpdate
from tuner.storage.reading import StudyLeft
from tuner.storage.store import Ledger


def left(ledger: Ledger, *campaigns: str) -> list[tuple[str, str, bool, bool]]:
    return [(one.campaign, one.name, one.free, one.running) for one in ledger.studies_left(campaigns or ("digits",))]


def test_each_state_of_the_trials(
    ledger: Ledger,
    study_id: int,
    claim: Callable[..., list[Claim]],
    update: Callable[..., TrialUpdate],
    pause: Callable[[float], None],
) -> None:
    assert ledger.studies_left(["digits"]) == [StudyLeft("digits", study_id, "round-1", free=True, running=False)]
    held = claim(3)
    assert left(ledger) == [("digits", "round-1", True, True)], "three are held and one waits"
    held += claim(1)
    assert left(ledger) == [("digits", "round-1", False, True)]
    ledger.release(held[:1])
    assert left(ledger) == [("digits", "round-1", True, True)]
    (again,) = claim(1)
    pause(61.0)
    assert left(ledger) == [("digits", "round-1", True, False)], "every lease is over"
    for one in (again, *held[1:]):
        ledger.record([update(one, 1, 0.5, State.COMPLETE)])
    assert left(ledger) == [("digits", "round-1", False, False)]


def test_campaigns_that_are_asked_for_and_no_others_in_the_order_of_their_start(
    ledger: Ledger, study_id: int, study: Study, make_trial: Callable[..., Trial]
) -> None:
    ledger.start_study("other", study, "code and data", trials=[make_trial(0)])
    ledger.start_study("digits", replace(study, name="round-2", round=2), "code and data", trials=[])
    assert left(ledger) == [("digits", "round-1", True, False), ("digits", "round-2", False, False)]
    assert left(ledger, "other", "digits", "nobody") == [
        ("digits", "round-1", True, False),
        ("other", "round-1", True, False),
        ("digits", "round-2", False, False),
    ]
    assert left(ledger, "nobody") == []


def test_one_statement_whatever_there_is(ledger: Ledger, study_id: int, study: Study) -> None:
    for number in range(2, 6):
        ledger.start_study("digits", replace(study, name=f"round-{number}", round=number), "code and data")
    asked: list[str] = []
    event.listen(ledger._database._engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    assert len(ledger.studies_left(["digits"])) == 5
    assert [text for text in asked if "FROM" in text] == asked[-1:]
