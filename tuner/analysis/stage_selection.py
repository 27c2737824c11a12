"""What a stage selects for the next one to start from: what was adopted, else the best of its last round (C1, C7)."""

from dataclasses import dataclass

from tuner.analysis.headline import headline, relatives
from tuner.analysis.questions.adoption import adoption_log, is_candidate, last_adopted
from tuner.analysis.round_frames import main_rounds, round_frames, row_of_trial
from tuner.analysis.study_frames import StudyFrames, ranked_results
from tuner.errors import StorageError
from tuner.records import Checkpoint, State, TrialRecord
from tuner.shown import quoted
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow


@dataclass(frozen=True, slots=True)
class SelectedRun:
    """A trial whose weights a later stage starts from, and whether it was adopted."""

    row: StudyRow
    record: TrialRecord
    adopted: bool = False

    @property
    def place(self) -> tuple[str, int]:
        """The study and the number of the trial."""
        return self.row.study.name, self.record.number

    @property
    def kept(self) -> list[Checkpoint]:
        """Its best checkpoints; none of a trial that did not complete, and where a quota deleted them."""
        best = [one for one in self.record.checkpoints if one.kind == "best" and one.value is not None]
        return best if self.record.state is State.COMPLETE else []

    @property
    def checkpoint(self) -> Checkpoint:
        """Its best checkpoint. Raises StorageError where it keeps none."""
        kept = self.kept
        if not kept:
            where = f", and was trained elsewhere ({self.row.elsewhere})" if self.row.elsewhere else ""
            raise StorageError(
                f"trial {self.record.number} of {self.row.campaign} {self.row.study.name} keeps no weights to start "
                f"from: it is {self.record.state.value}{where}; a file of weights can be named by "
                'weights_from("file.safetensors")'
            )
        return min(kept, key=lambda one: (self.row.study.objective.sign * (one.value or 0.0), one.step))


def selected_runs(ledger: Ledger, campaign: str, count: int = 1) -> list[SelectedRun]:
    """The configurations that a stage selects, the best first: what was adopted, then those of its last round.

    A control, which starts from scratch, is selected only where it was adopted. Of an adopted trial whose weights were
    deleted to save room it is the best one with fresh seeds of its contest. Fewer than `count` where no more are
    complete. Raises StorageError for a stage that is not finished: a trial of it is left, or none was adopted or
    completed in a round.
    """
    found: list[SelectedRun] = []
    adopted = last_adopted(ledger, campaign)
    if adopted is not None:
        row = ledger.study(campaign, adopted[0])
        run = SelectedRun(row, ledger.trial(row.study_id, adopted[1]), adopted=True)
        found.append(run if run.kept else _of_contest(ledger, campaign, adopted) or run)
    rounds = main_rounds(ledger, campaign)
    left = _left(ledger, campaign)
    if not found and (left or not rounds):
        launched = f"{left} trials are left" if rounds else "no round was launched"
        raise StorageError(f"the stage {quoted(campaign)} is not finished: {launched}")
    if rounds:
        for trial in _ranked(ledger, campaign, round_frames(ledger, campaign, rounds[-1])):
            run = SelectedRun(*row_of_trial(ledger, campaign, rounds[-1], trial))
            if run.place not in {one.place for one in found}:
                found.append(run)
    if not found:
        raise StorageError(f"the stage {quoted(campaign)} has no complete trial")
    return found[:count]


def _of_contest(ledger: Ledger, campaign: str, adopted: tuple[str, int]) -> SelectedRun | None:
    """The best training with fresh seeds of an adopted trial that keeps weights, where a quota deleted its own."""
    log = adoption_log(ledger, campaign)
    won = log[(log["verdict"] == "adopt") & (log["candidate"] == f"{adopted[0]} trial {adopted[1]}")]
    for name in reversed(won["study"].tolist()):
        row = ledger.study(campaign, str(name))
        runs = [SelectedRun(row, one, adopted=True) for one in ledger.trials(row.study_id) if is_candidate(one.number)]
        kept = [run for run in runs if run.kept]
        if kept:
            sign = row.study.objective.sign
            return min(kept, key=lambda run: (sign * (run.checkpoint.value or 0.0), run.record.number))
    return None


def _left(ledger: Ledger, campaign: str) -> int:
    """Trials of a campaign that are waiting or running, those of its controls left out."""
    counts = (ledger.state_counts(row.study_id) for row in ledger.studies(campaign) if not row.study.start)
    return sum(count for states in counts for state, count in states.items() if not state.finished)


def _ranked(ledger: Ledger, campaign: str, frames: StudyFrames) -> list[int]:
    """The complete trials of a round: the winner by the medians of fresh seeds first, then by their own values."""
    first = headline(frames, relatives(ledger, campaign, frames.study))
    ranked = [int(number) for number in ranked_results(frames)["trial"]]
    return list(dict.fromkeys(([first.trial] if first else []) + ranked))
