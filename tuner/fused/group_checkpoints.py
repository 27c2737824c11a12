"""The *latest* checkpoints of a group: one file for all trials that are saved together.

Each trial's record names the file and itself as its member, so any of them can go on alone, in another group, or not
fused. The file goes when none of them names it any more.
"""

from collections.abc import Sequence
from dataclasses import replace

from tuner.records import GROUP_FOLDER, Checkpoint, Claim
from tuner.training.checkpoints import CheckpointFolder
from tuner.training.setup import TrainingSetup
from tuner.training.stacked_states import stacked_states
from tuner.training.trainer import TrialInTraining


class GroupCheckpoints:
    """Files of one group. The number and the fence of its first trial make their names this group's own."""

    def __init__(self, setting: TrainingSetup, first: Claim) -> None:
        place = f"{setting.checkpoint_place}/{GROUP_FOLDER}{first.trial.number:05d}"
        self.root = setting.checkpoint_root
        self.folder = CheckpointFolder(self.root, place, first.fence)
        self._written: list[str] = []
        self._lent: set[str] = set()  # files that a trial may go on from which is another worker's now
        self._count = 0

    def save(self, trainings: Sequence[TrialInTraining]) -> None:
        """Write one file for all that are not saved at their step yet, and let each know it as its latest."""
        new = [one for one in trainings if not any(_is_latest(kept, one.run.step) for kept in one.checkpoints)]
        if len(new) < 2:  # its own file is as good
            return
        self._count += 1
        names = [f"trial-{one.claim.trial.number:05d}" for one in new]
        content = stacked_states({name: one.run.state() for name, one in zip(names, new, strict=True)})
        written = self.folder.write_state("latest", self._count, content, None)
        self._written.append(written.file)
        for name, one in zip(names, new, strict=True):
            kept = replace(written, step=one.run.step, value=one.latest_value(), member=name)
            one.checkpoints = (*one.checkpoints, kept)

    def lend(self, lost: TrialInTraining) -> None:
        """Keep what the next owner of a trial that is not ours any more may need."""
        self._lent |= {kept.file for kept in lost.checkpoints}

    def sweep(self, trainings: Sequence[TrialInTraining]) -> None:
        """Delete our files that no trial names any more."""
        named = self._lent | {kept.file for one in trainings for kept in (*one.checkpoints, *one.newest)}
        for file in [file for file in self._written if file not in named]:
            (self.root / file).unlink(missing_ok=True)
            self._written.remove(file)


def _is_latest(kept: Checkpoint, step: int) -> bool:
    return kept.kind == "latest" and kept.step == step
