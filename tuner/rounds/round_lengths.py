"""Rounds for a total number of steps: how many trials of which length, before anything is trained (A28-A33, A45).

Lengths grow geometrically to the production length. The last round has very few trials (A33); what is left is shared
equally among the rounds before it, so each step of length halves or thirds the trials that go on, and an idea passes
from length to length only where it held.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from tuner.budget.step_budget import rounded_up
from tuner.budget.transfer import lengthened
from tuner.design.campaign import Campaign
from tuner.design.round import Round
from tuner.design.stages import Stage, StartFrom
from tuner.errors import DeclarationError, TransferError

FIRST_SHARE = 0.10  # of the production length, for round 1 of a compute-bound workload [S] (A30)
MANY_ROUNDS = 3  # more are for teams with very mature pipelines and very long production runs [S] (A31, A44)


def geometric_lengths(first: int, last: int, count: int) -> tuple[int, ...]:
    """`count` lengths from `first` to `last` with a constant ratio, rounded up (A45)."""
    if count == 1:
        return (last,)
    ratio = last / first
    return (*(math.ceil(first * ratio ** (place / (count - 1)) - 1e-9) for place in range(count - 1)), last)


def compute_bound_lengths(campaign: Campaign, inherited: int = 0) -> tuple[int, ...]:
    """The steps of every round: as declared; else 10 % of the production length first, all of it last.

    Rounds between known ones grow geometrically. A control of a stage is no part of that: it is as long as the round
    before it, or as that and the `inherited` steps together (C5). Raises DeclarationError for rounds that do not grow
    (A31) or whose length nothing says (A2).
    """
    growing = _growing_lengths(campaign)
    return tuple(
        growing[number]
        if number in growing
        else control_steps(declared, growing[campaign.round_before(number) or 1], inherited)
        for number, declared in enumerate(campaign.rounds, 1)
    )


def control_steps(declared: Round, compared: int, inherited: int) -> int:
    """How long a control trains: as it declares, as the `compared` round, or as that with what that inherits (C5)."""
    return declared.max_train_steps or (compared if declared.total is None else compared + inherited)


def likely_inherited(stage: Stage) -> int:
    """The updates behind the weights that a stage will start from, as the stages before it declare their lengths.

    0 where they do not say it: in epochs, or in another file.
    """
    start: StartFrom | None = stage.campaign.start_from
    if stage.before is None:
        return 0 if start is None else start.steps
    return likely_inherited(stage.before) + _likely_steps(stage.before.campaign)


def _likely_steps(campaign: Campaign) -> int:
    """How long the last round of a campaign will probably train, before anything of it is trained."""
    if not campaign.is_in_steps:
        return 0
    main = [campaign.round(number) for number in campaign.main_rounds]
    declared = next((one.max_train_steps for one in reversed(main) if one.max_train_steps), 0)
    if campaign.production_steps is not None and campaign.sweep is None:
        return compute_bound_lengths(campaign)[campaign.main_rounds[-1] - 1]
    if declared or campaign.sweep is None:
        return declared
    return rounded_up(campaign.sweep.margin * 2 * campaign.sweep.start_steps)


def _growing_lengths(campaign: Campaign) -> dict[int, int]:
    """The steps of the rounds that are no controls, by number."""
    numbers = campaign.main_rounds
    known = [campaign.round(number).max_train_steps for number in numbers]
    if known[-1] is None:
        known[-1] = _production(campaign)
    if known[0] is None:
        known[0] = max(1, math.ceil(FIRST_SHARE * _production(campaign)))
    lengths = dict(zip(numbers, _filled(known), strict=True))
    for earlier, number in pairwise(numbers):
        check_growth(number, lengths[number], lengths[earlier], earlier)
    return lengths


def check_growth(number: int, steps: int, before: int, earlier: int = 0) -> None:
    """Raise DeclarationError where a round of a compute-bound workload is no longer than the one before (A31).

    earlier: the number of that one; by default it is the round before.
    """
    if steps <= before:
        earlier = earlier or number - 1
        raise DeclarationError(
            f"round {number} would train {steps:,} steps, no more than round {earlier} with {before:,}; the rounds "
            "of a compute-bound workload must grow (A31): raise production_steps or shorten the round before"
        )


def check_transfer(campaign: Campaign) -> None:
    """Raise TransferError where a later round would not know what to do with the schedule (A38, A43)."""
    steps = max(10_000, 10 * campaign.warmup_steps)
    schedule = campaign.schedule_family.schedule(steps, campaign.with_warmup(steps).warmup_steps)
    for number, declared in enumerate(campaign.rounds, 1):
        if declared.promote is not None and declared.transfer is None:
            try:
                lengthened(schedule, 2 * len(schedule))
            except TransferError as error:
                raise TransferError(f"round {number}: {error}") from error


def many_rounds_note(count: int) -> str | None:
    """The source's reason against more than three rounds, or None (A44)."""
    if count <= MANY_ROUNDS:
        return None
    return (
        f"{count} rounds; more than {MANY_ROUNDS} pay only where modelling and tuning pipelines are very mature and "
        "production runs very long and expensive (A44); most of the gain comes with the second"
    )


def _production(campaign: Campaign) -> int:
    if campaign.production_steps is None:
        raise DeclarationError(
            "the workload is compute-bound, so longer is better and only you know how long you can afford (A2); "
            "declare production_steps, the length of the final run"
        )
    return campaign.production_steps


def _filled(known: Sequence[int | None]) -> tuple[int, ...]:
    """Gaps between known lengths filled geometrically; the first and the last are known."""
    lengths: list[int] = []
    places = [place for place, steps in enumerate(known) if steps is not None]
    for low, high in pairwise(places):
        first, last = known[low], known[high]
        if first is not None and last is not None:
            lengths += geometric_lengths(first, last, high - low + 1)[:-1]
    return (*lengths, known[places[-1]] or 1)


FINAL_SHARE = 0.5  # [P] of a total budget is the most that the last round's long trials take
FEWEST_SEARCHED = 10  # [P] points below which a search tells little (B19, B21)


@dataclass(frozen=True, slots=True)
class PlannedRound:
    """A round before it is trained. relevance: its length as a share of the production length (A29).

    control: what a control of a stage declares besides its trials, as it is written; "" of other rounds. patience:
    after so many steps without an improvement a trial stops early, so that `steps` is a limit; 0: never.
    """

    number: int
    max_train_steps: int
    searched: int
    promoted: int
    fresh: int
    arms: int
    relevance: float
    control: str = ""
    patience: int = 0

    @property
    def trials(self) -> int:
        return self.searched + self.promoted + self.fresh + self.arms

    @property
    def steps(self) -> int:
        """Steps of all its trials, each from scratch."""
        return self.trials * self.max_train_steps


def planned_rounds(campaign: Campaign, inherited: int = 0) -> tuple[PlannedRound, ...]:
    """The rounds as they are declared; `inherited`: steps behind the weights that a stage starts from.

    Raises DeclarationError where they do not grow or have no length.
    """
    lengths = compute_bound_lengths(campaign, inherited)
    production = lengths[campaign.main_rounds[-1] - 1]
    pairs = zip(campaign.rounds, lengths, strict=True)
    return tuple(_declared(number, one, steps, production) for number, (one, steps) in enumerate(pairs, 1))


def rounds_for(
    campaign: Campaign, total_steps: int, count: int | None = None, inherited: int = 0
) -> tuple[PlannedRound, ...]:
    """`count` rounds (as many as declared) that take at most `total_steps` steps together, controls last.

    Raises DeclarationError where the total buys less than a search and one production run.
    """
    controls = [one for one in planned_rounds(campaign, inherited) if one.control]
    planned = _growing_rounds(campaign.without_controls, total_steps - sum(one.steps for one in controls), count)
    return planned + _after(planned, controls)


def _after(planned: tuple[PlannedRound, ...], controls: Sequence[PlannedRound]) -> tuple[PlannedRound, ...]:
    return tuple(replace(one, number=number) for number, one in enumerate(controls, len(planned) + 1))


def _growing_rounds(campaign: Campaign, total_steps: int, count: int | None) -> tuple[PlannedRound, ...]:
    lengths = compute_bound_lengths(campaign)
    if count is not None and count != len(lengths):
        first = lengths[0] if len(lengths) > 1 else max(1, round(FIRST_SHARE * lengths[-1]))
        lengths = geometric_lengths(first, lengths[-1], count)
    production, last = lengths[-1], campaign.rounds[-1]
    most = _declared(len(lengths), last, production, production).trials if last.promote else 1
    finals = max(1, min(most, int(FINAL_SHARE * total_steps) // production)) if len(lengths) > 1 else 0
    rest = total_steps - finals * production
    _check_enough(total_steps, rest, lengths, finals)
    counts = [rest // max(1, len(lengths) - 1) // steps for steps in lengths[:-1]] or [rest // production]
    for place in range(1, len(counts)):
        counts[place] = max(1, min(counts[place], counts[place - 1]))
    spare = rest - sum(trials * steps for trials, steps in zip(counts, lengths, strict=False))
    counts[0] += max(0, spare) // lengths[0]
    planned = [PlannedRound(1, lengths[0], counts[0], 0, 0, 0, lengths[0] / production)]
    for number, (trials, steps) in enumerate(zip([*counts[1:], finals], lengths[1:], strict=False), 2):
        promoted, fresh = _split(trials)
        planned.append(PlannedRound(number, steps, 0, promoted, fresh, 0, steps / production))
    final = planned[-1]
    return (*planned[:-1], replace(final, patience=(last.patience_steps or 0) if final.promoted else 0))


def rounds_of_one_length(
    campaign: Campaign, steps: int, total_steps: int, count: int | None = None, inherited: int = 0
) -> tuple[PlannedRound, ...]:
    """`count` rounds (as many as declared) of trials of `steps` steps each, that take at most `total_steps` together.

    Where training longer gains nothing, rounds do not grow: the last one confirms, as it is declared, and all before it
    search, with equally many trials; the controls of a stage come after them. Raises DeclarationError where the total
    buys less than a search in each.
    """
    controls = [
        _declared(number, one, control_steps(one, steps, inherited), steps)
        for number, one in enumerate(campaign.rounds, 1)
        if one.start is not None
    ]
    left = total_steps - sum(one.steps for one in controls)
    planned = _equal_rounds(campaign.without_controls, steps, left, count)
    return planned + _after(planned, controls)


def _equal_rounds(campaign: Campaign, steps: int, total_steps: int, count: int | None) -> tuple[PlannedRound, ...]:
    number = count or len(campaign.rounds)
    last = campaign.rounds[-1]
    final = _declared(number, last, steps, steps)
    finals = final.trials if last.promote and number > 1 else 0
    searching = max(1, number - 1) if finals else number
    trials = (total_steps - finals * steps) // (searching * steps)
    if trials < FEWEST_SEARCHED:
        need = (searching * FEWEST_SEARCHED + finals) * steps
        raise DeclarationError(
            f"{total_steps:,} steps buy no search of {FEWEST_SEARCHED} points of {steps:,} steps in each of "
            f"{searching} rounds and {finals} more trials; that takes {need:,}: raise --total-steps, or plan fewer "
            "--rounds"
        )
    planned = [PlannedRound(place, steps, trials, 0, 0, 0, 1.0) for place in range(1, searching + 1)]
    return (*planned, final) if finals else tuple(planned)


def declaration_words(planned: PlannedRound, *, length: bool = True) -> str:
    """What to write in the study file for a round; without its `length` where the sweep finds that."""
    trials = f"promote={planned.promoted}, fresh={planned.fresh}" if planned.promoted else f"trials={planned.searched}"
    trials += f", patience_steps={planned.patience}" if planned.patience else ""
    if planned.control:
        return f"{trials}, {planned.control}"
    return f"{trials}, max_train_steps={planned.max_train_steps}" if length else trials


def _declared(number: int, declared: Round, steps: int, production: int) -> PlannedRound:
    arms = len(declared.rate_arms) - 1
    searched, promoted = declared.trials or 0, declared.promote or 0
    control = "" if declared.start is None else f'start="{declared.start}"'
    control += "" if declared.total is None else f', total="{declared.total}"'
    return PlannedRound(
        number, steps, searched, promoted, declared.num_fresh, arms, steps / production, control,
        declared.patience_steps or 0,
    )  # fmt: skip


def _split(trials: int) -> tuple[int, int]:
    """Promoted points and fresh repetitions of the winner and a rival among so many trials (A32)."""
    fresh = min(2, trials // 2)
    return trials - fresh, fresh


def _check_enough(total_steps: int, rest: int, lengths: tuple[int, ...], finals: int) -> None:
    """The first round must be a search, and every round between must train something."""
    least = FEWEST_SEARCHED * lengths[0] * max(1, len(lengths) - 1)
    if rest < max(least, max(1, len(lengths) - 1) * max(lengths[:-1], default=lengths[0])):
        need = max(least, (len(lengths) - 1) * max(lengths[:-1], default=lengths[0])) + finals * lengths[-1]
        raise DeclarationError(
            f"{total_steps:,} steps buy no search of {FEWEST_SEARCHED} points of {lengths[0]:,} steps and {finals} "
            f"runs of {lengths[-1]:,}; that takes {need:,}: raise --total-steps, or lower production_steps (A28)"
        )
