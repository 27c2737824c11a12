"""Files that checkpoints of several trials need: recorded, counted once, and gone only when nobody can need them."""

from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from tuner.records import BaseFile, Checkpoint, Claim, Numerics, PrefixKey, State, TrialUpdate
from tuner.records.conclusions import Retention
from tuner.storage.folder_files import checkpoint_names, sorted_out, was_written_here
from tuner.storage.store import Ledger
from tuner.storage.verify import clear_strays, stray_files

Claiming = Callable[..., list[Claim]]
BASE = BaseFile(f"digits/round-1/frozen/base-{'a' * 32}.safetensors", "digest", 1000)
OTHER = BaseFile(f"digits/round-1/frozen/base-{'b' * 32}.safetensors", "other", 500)
KEY = PrefixKey("base", "path", Numerics.of({}))


def kept(number: int, base: BaseFile | None, step: int = 10) -> Checkpoint:
    file = f"digits/round-1/trial-{number:05d}/latest-{step:09d}-1.pt"
    return Checkpoint("latest", step, file, "digest", 7, None, "", KEY, base)


def recorded(ledger: Ledger, held: Claim, base: BaseFile | None, state: State = State.COMPLETE) -> Checkpoint:
    one = kept(held.trial.number, base)
    ledger.record([TrialUpdate(held.trial_id, held.fence, 10, state=state, checkpoints=[one])])
    return one


def forgotten(ledger: Ledger, held: Claim) -> list[str]:
    row = ledger.study("digits", "round-1")
    return ledger.forget_checkpoints(row, [(held.trial_id, "latest", 10)], Retention(("latest",)))


def test_a_base_is_read_with_the_checkpoint_and_its_room_counts_once(
    ledger: Ledger, study_id: int, claim: Claiming
) -> None:
    (first,), (second,), (third,) = claim(), claim(), claim()
    ones = [recorded(ledger, first, BASE), recorded(ledger, second, BASE), recorded(ledger, third, None)]
    assert [ledger.trial(study_id, number).checkpoints for number in range(3)] == [(one,) for one in ones]
    assert {prefix.checkpoint.base for prefix in ledger.prefixes(["base"])["base"]} == {BASE, None}
    assert ledger.checkpoint_bytes(study_id) == 3 * 7 + 1000
    known = {file.path: (file.digest, file.num_bytes) for file in ledger.checkpoint_files()}
    assert known[BASE.file] == ("digest", 1000)
    assert len(known) == 4


def test_a_base_stays_while_one_needs_it_and_its_row_goes_when_claims_are_held_off(
    ledger: Ledger, study_id: int, claim: Claiming
) -> None:
    (first,), (second,) = claim(), claim()
    recorded(ledger, first, BASE)
    recorded(ledger, second, BASE)
    assert forgotten(ledger, first) == [kept(0, None).file]
    assert BASE.file in {file.path for file in ledger.checkpoint_files()}
    forgotten(ledger, second)
    assert ledger.checkpoint_files() == []
    assert ledger.checkpoint_bytes(study_id) == 0
    with ledger.claims_held_off():
        pass
    (third,) = claim()
    assert recorded(ledger, third, BASE) == ledger.trial(study_id, 2).checkpoints[0], "named again"


def test_a_trial_that_changes_its_base_leaves_the_other_to_who_needs_it(
    ledger: Ledger, study_id: int, claim: Claiming
) -> None:
    (first,), (second,) = claim(), claim()
    recorded(ledger, first, BASE)
    recorded(ledger, second, BASE, State.RUNNING)
    last = kept(1, OTHER, 20)
    ledger.record([TrialUpdate(second.trial_id, second.fence, 20, state=State.COMPLETE, checkpoints=[last])])
    assert {BASE.file, OTHER.file} <= {file.path for file in ledger.checkpoint_files()}
    assert ledger.trial(study_id, 0).checkpoints[0].base == BASE


def test_nobody_claims_a_trial_while_claims_are_held_off(ledger: Ledger, study_id: int, claim: Claiming) -> None:
    claimed: list[Claim] = []
    thread = Thread(target=lambda: claimed.extend(claim()))
    with ledger.claims_held_off():
        thread.start()
        thread.join(0.3)
        assert claimed == []
        assert ledger.state_counts(study_id)[State.WAITING] == 4, "who only reads is not held off"
    thread.join()
    assert len(claimed) == 1


def test_a_base_that_nothing_needs_is_no_stray_while_any_trial_runs(
    ledger: Ledger, study_id: int, claim: Claiming, tmp_path: Path
) -> None:
    (first,), (second,) = claim(), claim()
    recorded(ledger, first, BASE)
    files = {base: tmp_path / base.file for base in (BASE, OTHER)}
    for path in (*files.values(), tmp_path / kept(0, None).file):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    place = "digits/round-1"
    assert stray_files(ledger, study_id, tmp_path, place) == [], "the second may be about to need it"
    assert clear_strays(ledger, study_id, tmp_path, place) == 0
    recorded(ledger, second, BASE)
    (tmp_path / kept(1, None).file).parent.mkdir()
    (tmp_path / kept(1, None).file).touch()
    assert stray_files(ledger, study_id, tmp_path, place) == [files[OTHER]]
    assert clear_strays(ledger, study_id, tmp_path, place) == 1
    assert [path.exists() for path in files.values()] == [True, False]


def test_who_begins_between_the_look_and_the_deletion_keeps_what_it_found(
    ledger: Ledger, study_id: int, claim: Claiming, tmp_path: Path
) -> None:
    path = tmp_path / OTHER.file
    path.parent.mkdir(parents=True)
    path.touch()
    taken: list[Claim] = []

    class Late:
        """A Ledger of which a trial is claimed after the strays were looked for, before claims are held off."""

        def __getattr__(self, name: str) -> object:
            if name == "claims_held_off" and not taken:
                taken.extend(claim())
            return getattr(ledger, name)

    late: object = Late()
    assert isinstance(late, Late)
    assert clear_strays(late, study_id, tmp_path, "digits/round-1") == 0
    assert path.exists()
    assert len(taken) == 1


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        (BASE.file, True),
        (f"digits/round-1/frozen/.base-{'a' * 32}.safetensors.123000010.tmp", True),
        (BASE.file.replace("round-1", "round-2"), False),
        (BASE.file.replace("frozen", "trial-00000"), False),
    ],
)
def test_whose_a_base_is(name: str, ours: bool, tmp_path: Path) -> None:
    fences = {"digits/round-1/trial-00000": 3, "digits/round-2/trial-00000": 0}
    assert was_written_here(name, fences) is ours
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).touch()
    names = checkpoint_names(tmp_path)
    assert names == [name]
    assert (sorted_out(names, [], fences).left == (name,)) is ours
