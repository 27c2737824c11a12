"""Carrying a learning rate schedule from a shorter to a longer run (A34-A43).

The rules: linear and constant-then-decay keep the length of their decay in steps and lengthen the constant part (A41);
cosine keeps its base rate and is stretched (A42); the warmup keeps its length in steps (A36, D18). Any other schedule
needs a declared transfer (A38, A43). No schedule is continued past its own end (D17). A Shape states which rule holds.
"""

from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import get_args

from tuner.budget.schedules import Mode, Piece, Schedule
from tuner.errors import TransferError

LOW_RATE = 0.10  # of the peak; extra steps below it are mostly wasted (A35)
SHORT_DECAY = 0.10  # of the new budget; shorter cooldowns lose quality (D19)
WASTED_SHARE = 0.5  # more than this share of the extra steps at a low rate is worth a warning (A35)


def lengthened(schedule: Schedule, max_train_steps: int, mode: Mode | None = None) -> Schedule:
    """The same schedule for `max_train_steps` >= its own steps, by the rule of its pieces.

    `mode` overrides the rule: "hold_then_decay" keeps the decay's steps, "rescale" stretches it.
    Raises TransferError where no rule exists and no mode was given, or where the run would get shorter.
    """
    if mode is not None and mode not in get_args(Mode):
        raise TransferError(f"mode is one of {', '.join(get_args(Mode))} (or None: by the rule), got {mode!r}")
    if max_train_steps < len(schedule):
        raise TransferError(
            f"a schedule of {len(schedule):,} steps cannot be lengthened to {max_train_steps:,}; give at least as many"
        )
    warmup = tuple(piece for piece in schedule.pieces if piece.kind.role == "warmup")
    body = tuple(piece for piece in schedule.pieces if piece.kind.role != "warmup")
    steps = max_train_steps - schedule.warmup_steps
    return Schedule(warmup + _lengthened_body(body, steps, mode or _rule(body)))


def _rule(body: tuple[Piece, ...]) -> Mode:
    if not body:
        return "rescale"
    last = body[-1].kind
    if len(body) == 1 and last.alone is not None:
        return last.alone
    if len(body) == 2 and body[0].kind.role == "hold" and last.after_hold:
        return "hold_then_decay"
    raise TransferError(
        f"no rule carries the schedule {' + '.join(piece.shape for piece in body)} to a longer run (A38); "
        "say which on the longer round: transfer='hold_then_decay' (keep the decay's steps), 'rescale' (stretch it) or "
        "'retune' (derive it again for the new length)"
    )


def _lengthened_body(body: tuple[Piece, ...], steps: int, mode: Mode) -> tuple[Piece, ...]:
    if not body:
        return (Piece("constant", steps),)
    if mode == "rescale":
        return _rescaled(body, steps)
    tail = body[1:] if body[0].kind.role == "hold" else body
    held = steps - sum(piece.steps for piece in tail)
    level = body[0].fraction(0)
    highest = max(Schedule(body).fractions())
    if held and level < highest:
        raise TransferError(
            f"the schedule begins at {level:g} of the base rate and rises to {highest:g} later, so holding its first "
            "rate over the extra steps would waste them (A35); say transfer='rescale' or 'retune' on the longer round"
        )
    return (Piece("constant", held, level, level), *tail) if held else tail


def _rescaled(body: tuple[Piece, ...], steps: int) -> tuple[Piece, ...]:
    old = sum(piece.steps for piece in body)
    ends = [0, *accumulate(piece.steps for piece in body)]
    # The ends of pieces are rounded, not their lengths: so the sum is exact and no piece gets shorter.
    places = [(2 * end * steps + old) // (2 * old) for end in ends]
    lengths = [end - start for start, end in pairwise(places)]
    return tuple(_stretched(piece, length) for piece, length in zip(body, lengths, strict=True))


def _stretched(piece: Piece, steps: int) -> Piece:
    """The piece over another number of steps: equal at equal relative progress."""
    end = piece.end * steps / piece.steps if piece.kind.scales_end else piece.end
    return replace(piece, steps=steps, end=end)


def trunk_steps(short: Schedule, long: Schedule) -> int:
    """The steps before the shorter run's decay, if the longer run begins with all of them; else 0.

    A longer trial with the same seed need not train these steps again. A warmup alone counts as 0 steps.
    """
    trunk = len(short) if short.decay_start is None else short.decay_start
    if trunk <= short.warmup_steps or trunk > len(long):
        return 0
    return trunk if long.fractions()[:trunk] == short.fractions()[:trunk] else 0


@dataclass(frozen=True, slots=True)
class TransferReport:
    """How a longer schedule uses its extra steps; shares in 0..1."""

    extra_steps: int
    extra_share_at_low_rate: float
    decay_share: float | None

    @property
    def warnings(self) -> tuple[str, ...]:
        found = []
        if self.extra_share_at_low_rate > WASTED_SHARE:
            found.append(
                f"{self.extra_share_at_low_rate:.0%} of the extra steps run below {LOW_RATE:.0%} of the base rate (A35)"
            )
        if self.decay_share is not None and self.decay_share < SHORT_DECAY:
            found.append(
                f"the decay is {self.decay_share:.1%} of the longer run; below {SHORT_DECAY:.0%} quality is lost "
                "(D19): 'rescale' keeps its share"
            )
        return tuple(found)


def transfer_report(short: Schedule, long: Schedule) -> TransferReport:
    """Compare a schedule with its longer version (A35, D19)."""
    extra = len(long) - len(short)
    low_extra = _steps_at_low_rate(long) - _steps_at_low_rate(short)
    decay_start = long.decay_start
    return TransferReport(
        extra_steps=extra,
        extra_share_at_low_rate=max(0.0, low_extra / extra) if extra else 0.0,
        decay_share=None if decay_start is None else (len(long) - decay_start) / len(long),
    )


def _steps_at_low_rate(schedule: Schedule) -> int:
    """Steps of the decay (not of the warmup) below LOW_RATE of the base rate."""
    start = schedule.decay_start
    if start is None:
        return 0
    return sum(fraction < LOW_RATE for fraction in schedule.fractions()[start:])
