"""What a study does where this process has other Numerics than the one that began it: found before a trial is claimed.

Its study file says so, `Campaign(other_numerics="mark")` or "refuse". Numerics are compared as far as both are known.
"""

import logging
from collections.abc import Sequence

from tuner.errors import StudyChanged
from tuner.execution.backend import Job
from tuner.records import Claim, Numerics
from tuner.records.conclusions import StudyNumerics

_log = logging.getLogger(__name__)
_MIXED = "a begun trial goes on"
MOST_NAMED = 6  # differences in a sentence


class OtherNumerics:
    """Looks whether a process trains a study under its Numerics, and says once what follows where it does not.

    numerics: of this process, or of one of its workers. tells: whether it is the one to say so; the coordinator of
    worker processes says it for them.
    """

    def __init__(self, job: Job, numerics: Numerics, *, tells: bool) -> None:
        self.ledger, self.row, self.numerics = job.ledger, job.row, numerics
        self.refuses = job.workload.machine.other_numerics == "refuse"
        self.told = job.workload.told_numerics
        self.tells = tells
        self.held = False  # whether a trial was claimed after the last check

    def check(self) -> None:
        """Raise StudyChanged where the rule refuses these Numerics; else say once how they differ from the study's."""
        begun = self.ledger.begin_under(self.row, StudyNumerics(self.numerics.canonical))
        different = self.numerics.differences(Numerics.from_text(begun.numerics))
        if self.refuses:
            if different:
                raise StudyChanged(self._refusal("was begun under other Numerics", different))
            self._refuse_mixed()
        elif different:
            self._say(
                different,
                f"{self.row.study.name} was begun under other Numerics ({_listed(different)}): the trials that are "
                "trained here are marked, see the column numerics of `tuner trials`",
            )

    def check_claimed(self) -> None:
        """Raise StudyChanged where another process began the study under other Numerics just before the first claim."""
        if self.refuses and not self.held:
            self.check()
        self.held = True

    def note(self, claims: Sequence[Claim]) -> None:
        """Say once that trials go on here that were begun under other Numerics."""
        for claim in claims:
            begun = Numerics.from_text(claim.begun_under) if claim.begun_under and claim.first_step else self.numerics
            different = self.numerics.differences(begun)
            if different and self.tells and _MIXED not in self.told:
                self.told.add(_MIXED)
                _log.warning(
                    "trial %d of %s was begun under other Numerics (%s), and no other trial is left to claim: it goes "
                    "on here and is marked exact=false", claim.trial.number, self.row.study.name, _listed(different),
                )  # fmt: skip

    def _refuse_mixed(self) -> None:
        """Trials that were trained before the rule was declared."""
        for record in self.ledger.trials(self.row.study_id):
            different = record.numerics.differences(self.numerics) if record.numerics else ()
            if different:
                raise StudyChanged(self._refusal(f"has trial {record.number}, trained under other Numerics", different))

    def _refusal(self, what: str, different: Sequence[str]) -> str:
        return (
            f"{self.row.study.name} of {self.row.campaign!r} {what} ({_listed(different)}), and its study file says "
            'other_numerics="refuse", so nothing was claimed here: train it where these are as they were, or write '
            'other_numerics="mark" to train it here, too, with the trials marked'
        )

    def _say(self, different: Sequence[str], words: str) -> None:
        """Warn, once a process for all studies that differ alike. Of packages alone the launch has told."""
        new = any(not one.startswith("package ") for one in different) and "; ".join(different) not in self.told
        if self.tells and new:
            self.told.add("; ".join(different))
            _log.warning("%s", words)


def _listed(different: Sequence[str]) -> str:
    more = len(different) - MOST_NAMED
    return "; ".join([*different[:MOST_NAMED], *[f"{more} more"] * (more > 0)])
