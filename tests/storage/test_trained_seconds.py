"""For how long trials were trained, as the Ledger keeps it: what an update says, through all claims."""

from collections.abc import Callable

from tuner.records import Claim, State, TrialUpdate
from tuner.storage.store import Ledger


def test_the_seconds_of_all_claims_are_kept_and_handed_on(
    ledger: Ledger, study_id: int, claim: Callable[..., list[Claim]]
) -> None:
    (first,) = claim()
    assert first.seconds == 0.0
    assert ledger.trial(study_id, 0).seconds is None, "nothing was recorded yet"
    ledger.record([TrialUpdate(first.trial_id, first.fence, 10, seconds=1.5)])
    ledger.record([TrialUpdate(first.trial_id, first.fence, 10, seconds=1.5)])  # its answer got lost
    assert ledger.trial(study_id, 0).seconds == 1.5
    ledger.record([TrialUpdate(first.trial_id, first.fence, 20)])
    assert ledger.trial(study_id, 0).seconds == 1.5, "None changes nothing"
    ledger.release([first])
    (second,) = claim()
    assert (second.trial_id, second.seconds) == (first.trial_id, 1.5)
    ledger.record([TrialUpdate(second.trial_id, second.fence, 100, state=State.COMPLETE, seconds=4.0)])
    assert ledger.trial(study_id, 0).seconds == 4.0


def test_what_a_trial_cost_before_it_begins_again_stays_spent(
    ledger: Ledger, study_id: int, claim: Callable[..., list[Claim]]
) -> None:
    (held,) = claim()
    ledger.record([TrialUpdate(held.trial_id, held.fence, 10, state=State.FAILED, reason="lost", seconds=2.0)])
    assert ledger.retry(study_id, afresh=True) == [0]
    (again,) = claim()
    assert again.seconds == 2.0
