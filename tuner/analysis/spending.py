"""For how long the trials of a study were trained, and what was saved by steps that trials share."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from tuner.records import TrialRecord
from tuner.records.hourly_price import HourlyPrice, amount_words
from tuner.shown import counted
from tuner.storage.store import Ledger


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds in which workers trained trials: updates, evaluations, compiling and checkpoints, in all attempts.

    A group that trained as one model shares its seconds equally. Not counted: starts of processes, waiting for other
    workers, what a killed worker had not committed. trials: that were counted. unknown: trials that were trained when
    nothing of this was recorded, or elsewhere. saved_seconds: an estimate, inherited steps at the seconds of a step.
    """

    seconds: float = 0.0
    trials: int = 0
    unknown: int = 0
    saved_seconds: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            self.seconds + other.seconds,
            self.trials + other.trials,
            self.unknown + other.unknown,
            self.saved_seconds + other.saved_seconds,
        )


def spent_on(records: Iterable[TrialRecord]) -> Spent:
    """What was spent on these trials, which are of one study."""
    trained = [record for record in records if record.step > record.inherited.steps or record.seconds]
    known = [record for record in trained if record.seconds is not None]
    seconds = sum(record.seconds or 0.0 for record in known)
    steps = sum(record.step - record.inherited.steps for record in known)
    saved = sum(record.inherited.steps for record in known)
    return Spent(seconds, len(known), len(trained) - len(known), saved * seconds / steps if steps else 0.0)


def spending(ledger: Ledger, campaign: str) -> dict[str, Spent]:
    """What was spent on each study of a campaign, by its name."""
    return {row.study.name: spent_on(ledger.trials(row.study_id)) for row in ledger.studies(campaign)}


def spent_words(ledger: Ledger, campaign: str, price: HourlyPrice) -> str:
    """What was spent on a campaign so far, as a sentence."""
    whole = sum(spending(ledger, campaign).values(), Spent())
    words = f"{price.about(whole.seconds)} spent on {whole.seconds / 3600.0:,.3g} hours of training so far"
    if whole.saved_seconds:
        words += f"; steps that trials share saved about {amount_words(price.of(whole.saved_seconds))}"
    return words + (f"; {counted(whole.unknown, 'trial')} of unknown time not counted" if whole.unknown else "")


def with_costs(frame: pd.DataFrame, ledger: Ledger, price: float) -> pd.DataFrame:
    """Rows of studies (columns campaign, study) with hours of training, and their cost at a price of an hour.

    None where trials were trained, and of none of them is recorded for how long.
    """
    found = {name: spending(ledger, name) for name in frame.get("campaign", pd.Series(dtype=str)).unique()}
    if frame.empty:
        return frame
    rows = zip(frame["campaign"], frame["study"], strict=True)
    spent = [found[campaign][study] for campaign, study in rows]
    hours = [None if one.unknown and not one.trials else one.seconds / 3600.0 for one in spent]
    costs = [None if one is None else one * price for one in hours]
    return frame.assign(hours=pd.Series(hours, frame.index, float), cost=pd.Series(costs, frame.index, float))
