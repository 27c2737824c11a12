"""`tuner.stability`: does instability limit the learning rate, and which warmup helps?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import pandas as pd

from tuner.analysis.finding import Finding
from tuner.analysis.questions.stability import stability_finding, stability_frame
from tuner.analysis.study_progress import Failure, failures
from tuner.api.sessions import MachineOptions, WorkerCount, opened, session_options
from tuner.api.showing import Display, StopFlag
from tuner.design.study_file import Declared
from tuner.reading import CampaignRecords
from tuner.rounds.stability_stages import (
    ABOVE,
    FACTOR,
    SEEDS,
    AskedStability,
    rows_of,
    stability_plan,
    train_rates,
    train_warmups,
)
from tuner.storage.engine import default_url


@dataclass(frozen=True, slots=True, repr=False)
class StabilityResult:
    """What a stability study found.

    records: the campaign, to read; `records.stability()` has the curves. finding: the answer with its evidence and the
    next action. clip_norm: the 90th percentile of recent gradient norms at the best rate; None where none were
    recorded. warmup_steps: the shortest warmup that is stable; None where none was tried, or none is. failures: trials
    that FAILED, with their reasons.
    """

    records: CampaignRecords
    finding: Finding
    clip_norm: float | None
    warmup_steps: int | None
    failures: tuple[Failure, ...]

    @property
    def table(self) -> pd.DataFrame:
        """One row a learning rate, then one a warmup; see `analysis.questions.stability.stability_frame`."""
        return stability_frame(self.records.stability())

    def __repr__(self) -> str:
        return repr(self.finding)


def stability(
    study: Declared,
    *,
    above: Sequence[float] = ABOVE,
    steps: int | float | None = None,
    seeds: int = SEEDS,
    warmups: Sequence[int] | None = None,
    factor: float = FACTOR,
    round: int | None = None,
    trial: int | None = None,
    yes: bool = False,
    retry_failed: bool = False,
    progress: bool | None = None,
    storage: str | None = None,
    checkpoints: str | Path | None = None,
    workers: WorkerCount = 1,
    **machine: Unpack[MachineOptions],
) -> StabilityResult:
    """Train the best configuration at learning rates above its own, and look for instability (B36-B39).

    Nothing of the rounds changes: neither budgets nor verdicts. The same call again continues and repeats nothing that
    is finished.

    above: the rates, in multiples of the best one. steps: of each trial; a float is a share of the budget; None: 500
    after the warmup, at most the budget. seeds: trainings of each rate. warmups: in steps; None: powers of ten, up to a
    tenth of the budget. factor: the rate that they lead to, in multiples of the unstable rate. round, trial: whose
    configuration; None: the best of the last round. yes: train the warmups where a rate is unstable, the shortest
    first, until one is stable. The other arguments are those of `run`.

    Raises DeclarationError where the training has no learning rate to raise, and what `run` raises.

    >>> found = tuner.stability(campaign, above=[2.0], seeds=1)
    >>> found.table["multiple"].tolist()
    [1.0, 2.0]
    >>> found.finding.question
    'stability'
    """
    display = Display(progress, StopFlag())
    options = session_options(storage, checkpoints, workers, machine)
    asked = AskedStability(
        tuple(map(float, above)), steps, seeds, None if warmups is None else tuple(warmups), float(factor)
    )
    with opened(study, options, display) as session:
        plan = stability_plan(session, asked, round, trial)
        found = train_rates(session, plan, retry_failed=retry_failed)
        if yes:
            found = train_warmups(session, plan, found, retry_failed=retry_failed)
        return StabilityResult(
            records=CampaignRecords(session.name, options.storage or default_url()),
            finding=stability_finding(found),
            clip_norm=found.clip_norm,
            warmup_steps=found.shortest_warmup,
            failures=tuple(failures(session.ledger, rows_of(session))),
        )
