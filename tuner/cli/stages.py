"""The stages of a study file on the command line: what each starts from, what it costs, and what it has trained."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from tuner.analysis.stage_chain import chain_frame, recorded_stage
from tuner.cli.launch import cost_words, print_studies, process_seconds, ranks_of, say_dry_run
from tuner.cli.options import Format
from tuner.cli.output import console, emit_frame, readable_bytes, readable_seconds, say, show
from tuner.cli.places import opened
from tuner.cli.sessions import open_session
from tuner.cli.training_options import TrainingOptions
from tuner.design.stages import Stage
from tuner.records.hourly_price import HourlyPrice, amount_words
from tuner.rounds.launch import Plan, Session
from tuner.rounds.price import Extremes, priced_campaign
from tuner.shown import shown


def print_chain(storage: str | None, names: Sequence[str]) -> None:
    """What the stages have trained so far."""
    with opened(storage, create=False) as ledger:
        stages = [recorded_stage(ledger, name) for name in names]
    emit_frame(chain_frame(stages), Format.table, "the stages, in steps", spare=("starts from",))


@dataclass(frozen=True, slots=True)
class StagePrice:
    """What a stage costs: the plans of its studies, and the updates behind the weights that it starts from.

    start: what it starts from, in words. inherited: as it will probably be where `expected`, because the stage before
    is not trained yet; None where nothing is known of it.
    """

    name: str
    start: str
    inherited: int | None
    expected: bool
    plans: tuple[Plan, ...]

    @property
    def steps_of_best(self) -> int | None:
        """Updates that will probably be behind the weights that a later stage starts from."""
        if self.inherited is None or not self.plans:
            return None
        return self.inherited + self.plans[-1].study.budget.max_train_steps

    @property
    def row(self) -> tuple[str, ...]:
        """A row of the table of all stages."""
        inherited = "not known yet" if self.inherited is None else f"{'about ' * self.expected}{self.inherited:,}"
        return (shown(self.name), shown(self.start) or "-", inherited, *_sums(self.plans))


def _sums(plans: Sequence[Plan]) -> tuple[str, str, str, str]:
    """Trials, steps, time and disk."""
    return (
        f"{sum(len(plan.trials) for plan in plans):,}", f"{sum(plan.steps for plan in plans):,}",
        readable_seconds(sum(plan.seconds for plan in plans)),
        readable_bytes(sum(plan.checkpoint_bytes for plan in plans)),
    )  # fmt: skip


def print_chain_prices(stages: Sequence[Stage], options: TrainingOptions, price: HourlyPrice | None = None) -> None:
    """Trials, steps, time and disk of the whole playbook of each stage, as it will probably go; then of all together.

    A stage whose source is not trained yet is priced by the weights of a fresh model.
    """
    priced: list[StagePrice] = []
    for place, stage in enumerate(stages, 1):
        if len(stages) > 1:
            show(f"stage {place} of {len(stages)}: {stage.words}", style="bold")
        with open_session(options, dry_run=True, stage=stage) as session:
            priced.append(_priced_stage(session, stage, priced, price))
    if len(priced) > 1:
        _print_all(priced)
        if price is not None:
            plans = [plan for one in priced for plan in one.plans]
            say(cost_words(price, sum(map(process_seconds, plans)), ranks_of(plans)))
    say_dry_run([plan for one in priced for plan in one.plans])


def print_stage_prices(session: Session, price: HourlyPrice | None = None) -> None:
    """Trials, steps, time and disk of the whole playbook of one campaign as it will probably go, and at worst."""
    say_dry_run(_printed(session, price))


def _printed(session: Session, price: HourlyPrice | None) -> tuple[Plan, ...]:
    """The plans of a campaign, which were printed with what they cost at worst."""
    lines = list(priced_campaign(session))
    plans = tuple(line for line in lines if not isinstance(line, Extremes))
    print_studies(*plans, price=price)
    for words in _more_words(session, lines, price):
        say(words)
    return plans


def _priced_stage(
    session: Session, stage: Stage, before: Sequence[StagePrice], price: HourlyPrice | None
) -> StagePrice:
    """Print what a stage costs, and return it; `before`: the prices of earlier ones."""
    plans = _printed(session, price)
    start, inherited = stage.campaign.start_from, session.loaded.inherited
    if start is None:
        return StagePrice(stage.name, "", 0, False, plans)
    if inherited is None:
        steps = next((one.steps_of_best for one in before if one.name == start.campaign), None)
        return StagePrice(stage.name, start.words, steps, True, plans)
    steps = inherited.start.inherited_steps
    say(f"{stage.name} {inherited.words}; {steps:,} inherited steps")
    return StagePrice(stage.name, start.words, steps, False, plans)


def _more_words(session: Session, lines: Sequence[Plan | Extremes], price: HourlyPrice | None) -> Iterator[str]:
    first = next((line for line in lines if isinstance(line, Plan) and line.study.round == 1), None)
    if session.campaign.warmup is not None and first is not None:
        yield (
            f"warmup: {session.campaign.warmup:.0%} of the steps of round 1, here {first.study.warmup_steps:,} steps; "
            "later rounds keep that number of steps (D18)"
        )
    for line in lines:
        if isinstance(line, Extremes):
            yield f"{line.what}, likely: {_price_words(line.likely, price)} ({line.likely_if})"
            yield f"{line.what}, at worst: {_price_words(line.worst, price)} ({line.worst_if})"


def _price_words(plans: Sequence[Plan], price: HourlyPrice | None) -> str:
    steps, seconds = sum(plan.steps for plan in plans), sum(plan.seconds for plan in plans)
    cost = "" if price is None else f", about {amount_words(price.of(sum(map(process_seconds, plans))))}"
    return f"{steps:,} steps, about {readable_seconds(seconds)}{cost}"


def _print_all(priced: Sequence[StagePrice]) -> None:
    """A row for each stage, and one for all of them."""
    table = Table(box=None, pad_edge=False, header_style="bold", title="all stages", title_justify="left")
    for name in ("stage", "starts from"):
        table.add_column(name, no_wrap=True)
    for name in ("inherited steps", "trials", "steps", "time", "disk"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in priced:
        table.add_row(*map(Text, one.row))
    table.add_row("all", "", "", *_sums([plan for one in priced for plan in one.plans]))
    console().print(table)
