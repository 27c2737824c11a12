"""What the campaign has cost so far, where the price of an hour was given."""

from tuner.analysis.spending import Spent, spending
from tuner.records.hourly_price import HourlyPrice, amount_words
from tuner.report.material import Material
from tuner.report.section import Block, Blocks, Part, Section
from tuner.report.tables import Column, Table
from tuner.report.wording import NOTHING

_LEAD = (
    "At {price} an hour of a worker the trials cost about {cost} so far, for {hours:,.3g} hours of training. Counted "
    "are updates, evaluations, compiling and checkpoints of all attempts; not starts of processes, waiting, and steps "
    "that a killed worker had not saved, so a machine that was rented for longer has cost more."
)
_UNKNOWN = "For {count:,} trials it is not recorded how long they were trained; their cost is not in these sums."


def costs(material: Material) -> list[Part]:
    """A row for each study, and one for all; nothing without a price."""
    price = material.price
    if price is None:
        return []
    found = spending(material.ledger, material.campaign)
    whole = sum(found.values(), Spent())
    rows = [_row(price, name, spent) for name, spent in found.items()]
    titles = ("study", "trials", "hours", "cost", "a trial", "saved by shared steps")
    table = Table(
        tuple(Column(title, place > 0) for place, title in enumerate(titles)), (*rows, _row(price, "all", whole))
    )
    lead = _LEAD.format(price=price.text, cost=amount_words(price.of(whole.seconds)), hours=whole.seconds / 3600.0)
    cautions = (_UNKNOWN.format(count=whole.unknown),) if whole.unknown else ()
    return [Part("costs", Blocks((lead,), cautions, (Block(table=table, fit=True),)), "Costs")]


def _row(price: HourlyPrice, name: str, spent: Spent) -> tuple[str, ...]:
    if not spent.trials:
        return (name, "0", *[NOTHING] * 4)
    cost, saved = price.of(spent.seconds), price.of(spent.saved_seconds)
    return (
        name,
        f"{spent.trials:,}",
        f"{spent.seconds / 3600.0:,.3g}",
        amount_words(cost),
        amount_words(cost / spent.trials),
        amount_words(saved) if saved else NOTHING,
    )


COSTS = Section(name="costs", place=125, make=costs)
