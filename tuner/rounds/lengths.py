"""The lengths of a compute-bound campaign's rounds, all known before anything is trained (A28-A31, A45)."""

import math
from collections.abc import Sequence
from itertools import pairwise

from tuner.budget.transfer import lengthened
from tuner.design.campaign import Campaign
from tuner.errors import DeclarationError, TransferError

FIRST_SHARE = 0.10  # of the production length, for round 1 of a compute-bound workload [S] (A30)
MANY_ROUNDS = 3  # more are for teams with very mature pipelines and very long production runs [S] (A31, A44)


def geometric_lengths(first: int, last: int, count: int) -> tuple[int, ...]:
    """`count` lengths from `first` to `last` with a constant ratio, rounded up (A45)."""
    if count == 1:
        return (last,)
    ratio = last / first
    return (*(math.ceil(first * ratio ** (place / (count - 1)) - 1e-9) for place in range(count - 1)), last)


def compute_bound_lengths(campaign: Campaign) -> tuple[int, ...]:
    """The steps of every round: as declared; else 10 % of the production length first, all of it last.

    Rounds between known ones grow geometrically. Raises DeclarationError for rounds that do not grow (A31) or whose
    length nothing says (A2).
    """
    known: list[int | None] = [declared.max_train_steps for declared in campaign.rounds]
    if known[-1] is None:
        known[-1] = _production(campaign)
    if known[0] is None:
        known[0] = max(1, math.ceil(FIRST_SHARE * _production(campaign)))
    lengths = _filled(known)
    for number, (before, after) in enumerate(pairwise(lengths), 2):
        check_growth(number, after, before)
    return lengths


def check_growth(number: int, steps: int, before: int) -> None:
    """Raise DeclarationError where a round of a compute-bound workload is no longer than the one before (A31)."""
    if steps <= before:
        raise DeclarationError(
            f"round {number} would train {steps:,} steps, no more than round {number - 1} with {before:,}; the rounds "
            "of a compute-bound workload must grow (A31): raise production_steps or shorten the round before"
        )


def check_transfer(campaign: Campaign) -> None:
    """Raise TransferError where a later round would not know what to do with the schedule (A38, A43)."""
    schedule = campaign.schedule.schedule(max(10_000, 10 * campaign.warmup_steps), campaign.warmup_steps)
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
