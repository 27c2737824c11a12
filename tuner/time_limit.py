"""When a command has to have ended: after `--max-seconds`, or with its SLURM job. Training stops in time to save.

| limit                | what it is                                            | by which clock                       |
|----------------------|-------------------------------------------------------|--------------------------------------|
| `--max-seconds S`    | S seconds after the start of the command              | one that nobody sets (monotonic)     |
| `SLURM_JOB_END_TIME` | in the environment of a SLURM job, seconds since 1970 | the machine's, once, then that other |

The earlier one counts. What happens then is what a signal does (`tuner.signals`): trials are saved at their next step
and given back, no attempt is counted, and the exit code is 130.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from tuner.errors import InputError, Interrupted
from tuner.signals import LAST_SECONDS, SAVE_SECONDS, SHUTDOWN

VARIABLE = "SLURM_JOB_END_TIME"
MARGIN_SECONDS = 6.0  # for what comes after saving: worker processes end, the interpreter ends
RESERVE_SECONDS = SAVE_SECONDS + LAST_SECONDS + MARGIN_SECONDS  # before the limit training stops
MOST_OF_IT = 1 / 4  # of --max-seconds that is kept back to save
BEGIN_SECONDS = 10.0  # before training stops no trial is begun: it would hardly get to its first step
LONGEST_SECONDS = 1e9  # thirty years: what is longer has no date
_PAST_SECONDS = 366 * 24 * 3600.0  # what is longer ago was no time of a job


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """A moment by which everything is saved and the command has ended.

    ends_at: by the monotonic clock of this machine. reserve: seconds before it at which training stops. words: what
    ends then, for a person, like "this SLURM job ends (SLURM_JOB_END_TIME)".
    """

    ends_at: float
    reserve: float
    words: str

    @property
    def stops_at(self) -> float:
        """When training stops, by the monotonic clock."""
        return self.ends_at - self.reserve

    @property
    def claims_until(self) -> float:
        """Until when trials are begun, by the monotonic clock."""
        return self.stops_at - min(BEGIN_SECONDS, self.reserve / 3)

    @property
    def save_seconds(self) -> float:
        """Of the reserve, the time in which trials can save."""
        return self.reserve * SAVE_SECONDS / RESERVE_SECONDS

    @property
    def told(self) -> str:
        """When training stops by the machine's clock, and why, for a person."""
        stops = datetime.fromtimestamp(time.time() + self.stops_at - time.monotonic()).astimezone()
        short = "" if self.reserve >= RESERVE_SECONDS else "; a longer limit leaves more time to save"
        when = f"{stops:%Y-%m-%d %H:%M:%S}, {self.reserve:.3g} s before {self.words}"
        return f"note: training stops, and saves, at {when}{short}"

    @contextmanager
    def observed(self) -> Iterator["TimeLimit"]:
        """Within the block training stops in time for this limit."""
        why = f"the time is up: {self.words} in {self.reserve:.3g} s, so training stops now"
        with SHUTDOWN.ending_at(self.stops_at, why, self.save_seconds):
            yield self


def known_limit(max_seconds: float | None, environment: Mapping[str, str]) -> TimeLimit | None:
    """The earlier of the limits of this command, None without one.

    max_seconds: from the start of the command on. environment: the variables, of which SLURM's is read. Raises
    InputError for a value that is no time, Interrupted where a job ends so soon that nothing can be begun.
    """
    now = time.monotonic()
    began = SHUTDOWN.listening_since or now
    known = [_of_option(max_seconds, began), _of_job(environment.get(VARIABLE, ""), now)]
    return min((one for one in known if one is not None), key=lambda one: one.stops_at, default=None)


def _of_option(seconds: float | None, began: float) -> TimeLimit | None:
    if seconds is None:
        return None
    if not math.isfinite(seconds) or seconds <= 0.0:
        raise InputError(
            f"--max-seconds is a number of seconds above 0, got {seconds:g}; without the option there is no limit"
        )
    reserve = min(RESERVE_SECONDS, seconds * MOST_OF_IT)
    return TimeLimit(began + min(seconds, LONGEST_SECONDS), reserve, f"--max-seconds {seconds:g} ends")


def _of_job(given: str, now: float) -> TimeLimit | None:
    if not given.strip():
        return None
    left = _seconds_left(given)
    if left < RESERVE_SECONDS:
        raise Interrupted(
            f"nothing was begun: this SLURM job ends in {left:.0f} s ({VARIABLE}), and saving may take "
            f"{RESERVE_SECONDS:g} s; run the same command again in a job that has more time"
        )
    return TimeLimit(now + min(left, LONGEST_SECONDS), RESERVE_SECONDS, f"this SLURM job ends ({VARIABLE})")


def _seconds_left(given: str) -> float:
    """Seconds until the end of the job. Raises InputError."""
    wrong = f"unset {VARIABLE} where it was left over from another job"
    try:
        left = float(given) - time.time()
    except ValueError:
        left = math.nan
    if not math.isfinite(left) or left < -time.time() + 1.0:
        raise InputError(f"{VARIABLE} is the end of a SLURM job in seconds since 1970, got {given!r:.40}; {wrong}")
    if left <= 0.0:
        ago = f"{-left:.0f} s ago" if -left < _PAST_SECONDS else "long ago"
        raise InputError(f"{VARIABLE} says that this SLURM job ended {ago} ({given.strip():.40}): {wrong}")
    return left
