"""Files that nobody points to are found; those of a trial that runs, or that ends while we look, are not among them."""

from collections.abc import Callable
from pathlib import Path

from tuner.records import Checkpoint, Claim, State, TrialUpdate
from tuner.storage.store import Ledger
from tuner.storage.verify import stray_files

Claiming = Callable[..., list[Claim]]
Updating = Callable[..., TrialUpdate]


def test_files_of_a_trial_that_ends_while_strays_are_looked_for_stay(
    ledger: Ledger, study_id: int, claim: Claiming, update: Updating, tmp_path: Path
) -> None:
    (ending,), (running,) = claim(), claim()
    files = {}
    for held in (ending, running):
        folder = tmp_path / "study" / f"trial-{held.trial.number:05d}"
        folder.mkdir(parents=True)
        files[held.trial.number] = folder / "latest.pt"
        files[held.trial.number].touch()
    stray = tmp_path / "study" / "trial-00003" / "left-over.pt"
    stray.parent.mkdir()
    stray.touch()
    assert stray_files(ledger, study_id, tmp_path, "study") == [stray]

    late = Late(ledger, lambda: ledger.record([update(ending, 9, 0.5, State.COMPLETE, checkpoints=kept)]))
    kept = [Checkpoint("latest", 9, str(files[0].relative_to(tmp_path)), "digest", 0)]
    assert stray_files(late, study_id, tmp_path, "study") == [stray]
    assert ledger.trial(study_id, 0).state is State.COMPLETE
    stray.unlink()
    files[1].unlink()
    late.asked.clear()
    assert stray_files(late, study_id, tmp_path, "study") == []
    assert late.asked == ["checkpoint_files"], "not every trial is read where all files are known"


class Late:
    """A Ledger in which something happens just before its trials are read."""

    def __init__(self, ledger: Ledger, happens: Callable[[], None]) -> None:
        self.ledger = ledger
        self.happens = happens
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> object:
        self.asked.append(name)
        if name == "trials":
            self.happens()
        return getattr(self.ledger, name)
