"""Does instability limit the learning rate, and what mends it (B36-B39)? Answered from trials of a stability study."""

from collections.abc import Iterator

import pandas as pd

from tuner.analysis.finding import Finding, Question, Strength, Verdict
from tuner.analysis.loss_rises import THRESHOLDS
from tuner.analysis.questions.clipping import MOST
from tuner.analysis.round_frames import round_of
from tuner.analysis.stability_records import EARLY, PERCENTILE, StabilityRecords, stability_records
from tuner.records.conclusions import StabilityStudies
from tuner.shown import counted
from tuner.storage.store import Ledger

LONG = 0.05  # [S] of max_train_steps: with a longer warmup the budget may have to grow (B37)
_PERCENTILE = f"{100 * PERCENTILE:.0f}th percentile"
AGREEING = 3  # [P] seeds that show the same for a strong answer

_MENDS = (
    "a warmup, then clip_norm, then another optimizer or a more stable architecture, a lower learning rate last (B39)"
)
QUESTION = Question(
    name="stability",
    sentence="Does instability limit the learning rate?",
    order=132,
    verdicts=(
        Verdict("stable", "fine"),
        Verdict("warmup_helps", "act", "Lengthen the warmup, and search higher learning rates (B37)."),
        Verdict("unstable", "act", f"Make the training more stable: {_MENDS}."),
        Verdict("inconclusive", "open", "Let the trials complete: tuner stability STUDY_FILE."),
    ),
    thresholds={**THRESHOLDS, "percentile": PERCENTILE, "early": EARLY, "long": LONG, "most": MOST},
    title="{subject}",
    rules=("B36", "B37", "B38", "B39", "D45"),
)
_COLUMNS = ["part", "multiple", "rate", "warmup_steps", "seeds", "unstable", "signs", "onset", "height"]


def stability_frame(records: StabilityRecords) -> pd.DataFrame:
    """One row a learning rate, then one a warmup.

    Columns: part ("rate", "warmup"), multiple (of the best rate), rate, warmup_steps, seeds, unstable (of the seeds),
    signs, onset (the step from which the loss goes up; median of the seeds), height (of the rise, in gains of the best
    rate).
    """
    rates = records.by_rate.assign(part="rate", warmup_steps=records.present_warmup)
    warmups = records.by_warmup.assign(part="warmup")
    parts = [part[_COLUMNS] for part in (rates, warmups) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_COLUMNS)


def stability_finding(records: StabilityRecords) -> Finding:
    """stable, warmup_helps, unstable, or inconclusive while trials are missing or the best rate does not train."""
    table = stability_frame(records)
    subject = f"stability of {records.source}"
    missing = _missing(records)
    if missing:
        return QUESTION.answer(subject, "inconclusive", missing, table, action=_to_conclude(records))
    unstable = records.unstable
    if unstable is None:
        notes = [*_seeds_that_rose(records), *_one_seed(records)]
        return QUESTION.answer(subject, "stable", _steady(records), table, strength=_strength(records), caveats=notes)
    warmup = records.shortest_warmup
    summary = " ".join([_what_is_unstable(records, unstable), *_what_of_warmups(records), *_what_of_norms(records)])
    return QUESTION.answer(
        subject,
        "unstable" if warmup is None else "warmup_helps",
        summary,
        table,
        strength=_strength(records),
        action=_write_warmup(records, warmup) if warmup is not None else _action(records, unstable),
        caveats=_caveats(records, warmup),
    )


def recorded_stability_findings(ledger: Ledger, campaign: str, study: str) -> list[Finding]:
    """The answer of the newest stability study, where it trained a trial of this round; none otherwise."""
    if ledger.conclusion(campaign, StabilityStudies) is None:
        return []
    records = stability_records(ledger, campaign)
    return [stability_finding(records)] if round_of(records.study.name) == round_of(study) else []


def _missing(records: StabilityRecords) -> str:
    """What keeps the records from an answer; "" for nothing."""
    if records.unfinished:
        failed = int(records.trials["state"].eq("failed").sum())
        told = f"{counted(failed, 'trial')} FAILED" if failed else f"{counted(records.unfinished, 'trial')} did not end"
        return f"{told}, so nothing is concluded from the others."
    against = records.against
    if against is not None and against.falls:
        return ""
    if against is None and records.unstable is not None:
        return ""  # the best rate itself diverges
    return (
        f"The training loss at the best learning rate, {records.best_rate:.3g}, does not fall by more than its noise "
        "in these steps, so there is nothing to compare with."
    )


def _to_conclude(records: StabilityRecords) -> str:
    """What has to be done before there is an answer; "": let the trials complete."""
    if records.trials["state"].eq("failed").any():
        return "Remove the cause of the FAILED trials, then the same command with --retry-failed."
    return "" if records.unfinished else "Train longer: tuner stability STUDY_FILE --steps 100%."


def _steady(records: StabilityRecords) -> str:
    highest = records.by_rate.iloc[-1]
    return (
        f"The training loss falls without a rise up to {highest['multiple']:g} times the best learning rate "
        f"({highest['rate']:.3g}): instability does not limit the rate (B36)."
    )


def _seeds_that_rose(records: StabilityRecords) -> list[str]:
    """The rates at which a minority of the seeds was unstable, or all rates, as the data have it."""
    rates, data = records.by_rate, records.rises_at_all_rates
    return [
        f"{row['unstable']:.0f} of {counted(int(row['seeds']), 'seed')} showed a rise at {row['multiple']:g} times it"
        + (", and no higher rate makes it worse: its reason is in the data, or their order" if data else "")
        for row in rates[rates["unstable"] > 0].to_dict("records")
    ]


_HOW = {
    "diverged": "training diverges",
    "sudden": "the training loss rises after it had fallen",
    "early": "the training loss rises at once",
    "stuck": "the training loss hardly falls",
}


def _what_is_unstable(records: StabilityRecords, row: pd.Series) -> str:
    itself = row["multiple"] == 1.0
    whose = "the best learning rate itself" if itself else f"{row['multiple']:g} times the best learning rate"
    what = " or ".join(_HOW[sign] for sign in str(row["signs"]).split(", ") if sign)
    seeds = f"{row['unstable']:.0f} of {counted(int(row['seeds']), 'seed')}"
    return f"At {whose}, {row['rate']:.3g}, {what}, from step {row['onset']:,.0f} on ({seeds})."


def _what_of_warmups(records: StabilityRecords) -> Iterator[str]:
    table, warmup = records.by_warmup, records.shortest_warmup
    if table.empty:
        return
    base = f"{float(table.iloc[0]['rate']):.3g}"
    shorter = [f"{steps:,.0f}" for steps in table.loc[table["unstable"] > 0, "warmup_steps"]]
    if warmup is None:
        yield f"No warmup that was tried makes {base} stable ({', '.join(shorter)} steps)."
        return
    than = f"; {', '.join(shorter)} {'is' if len(shorter) == 1 else 'are'} too short" if shorter else ""
    yield f"A warmup of {warmup:,} steps to {base} is stable{than}."


def _what_of_norms(records: StabilityRecords) -> Iterator[str]:
    limit, above = records.clip_norm, records.clipped_above
    if limit is None:
        yield "Gradient norms were not recorded."
        return
    halved = records.next_clip_norm != limit
    it = f"{records.next_clip_norm:.3g}, half of the present clip_norm," if halved else "it"
    share = "" if above is None else f"; at the unstable rate {above:.0%} are above {it} before the loss rises"
    yield f"The {_PERCENTILE} of recent gradient norms at the best rate is {limit:.3g}{share}."


def _action(records: StabilityRecords, unstable: pd.Series) -> str:
    """One next action, with the line to write: the first of the fixes that the records leave open (B39)."""
    if records.by_warmup.empty and records.is_early and _has_warmups(records):
        return (
            "First find the shortest warmup that is stable (B37): tuner stability STUDY_FILE --yes trains the warmups."
        )
    limit, above = records.next_clip_norm, records.clipped_above
    late = f"The loss rises after step {unstable['onset']:,.0f}, where a warmup has ended. "
    why = "" if records.is_early else late
    then = "another optimizer or a more stable architecture, and a lower learning rate last (B39)"
    if limit is None:
        return (
            f"{why}Clip gradients, with clip_norm at the {_PERCENTILE} of the norms of your training, measured before "
            f"clipping (B38); then {then}."
        )
    if above is not None and above > MOST:
        return (
            f"{why}clip_norm={limit:.2g} would clip {above:.0%} of the updates, and where most are clipped it sets the "
            "size of the steps: the learning rate is the lever (B38). Search learning rates below "
            f"{unstable['rate']:.3g}, or try another optimizer or a more stable architecture (B39)."
        )
    what = f"the {_PERCENTILE} of recent gradient norms"
    if limit != records.clip_norm:
        what = f"half of the present {records.present_clip:.2g}"
    return (
        f"{why}Write clip_norm=fixed({limit:.2g}), {what}, in the SearchSpace of a new Round, train it (tuner run "
        "STUDY_FILE), and run tuner stability again; halve it where training is still unstable (B38). After that "
        f"{then}."
    )


def _has_warmups(records: StabilityRecords) -> bool:
    """Whether a tenth of the budget holds a longer warmup than the present one."""
    return records.longest_warmup > max(1, records.present_warmup)


def _write_warmup(records: StabilityRecords, warmup: int) -> str:
    base = float(records.by_warmup.iloc[0]["rate"])
    before = records.max_train_steps - records.present_warmup
    return (
        f"Write warmup_steps=fixed({warmup}) in the SearchSpace of a new Round whose learning rates reach {base:.2g}, "
        f"and max_train_steps={before + warmup}: the warmup stands before the present schedule ({before:,} + "
        f"{warmup:,} = {before + warmup:,} steps). Then compare its best trial with the present one: tuner run "
        "STUDY_FILE (B37)."
    )


def _caveats(records: StabilityRecords, warmup: int | None) -> list[str]:
    told = []
    if warmup is not None and warmup > LONG * records.max_train_steps:
        told.append(
            f"this warmup is {warmup / records.max_train_steps:.0%} of the {records.max_train_steps:,} steps: above "
            f"{LONG:.0%} the budget may have to grow, beyond the steps of the warmup (B37)"
        )
    if records.by_warmup.empty and records.is_early and not _has_warmups(records):
        told.append(
            f"no warmup was tried: a tenth of the {records.max_train_steps:,} steps is no longer than the present "
            f"warmup of {records.present_warmup:,} steps; --warmups names others"
        )
    return [*told, *_one_seed(records)]


def _one_seed(records: StabilityRecords) -> list[str]:
    return ["one seed was trained; --seeds 3 shows the luck of the seed"] if records.num_seeds == 1 else []


def _strength(records: StabilityRecords) -> Strength:
    table = stability_frame(records)
    if records.num_seeds == 1:
        return "weak"
    agree = (table["unstable"] == 0) | (table["unstable"] == table["seeds"])
    return "strong" if records.num_seeds >= AGREEING and bool(agree.all()) else "moderate"
