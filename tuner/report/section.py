"""What a section of the page is: one frozen record, in the file that makes it.

To add a section, write a file with a record of `Section` in `tuner.report.sections`, or register one from a plugin.
A section that is made of sentences, tables, plots and cards needs no template: its content is `Blocks`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuner.registry import Registry
from tuner.report.cards import Card
from tuner.report.images import Image
from tuner.report.material import Material
from tuner.report.tables import Table


@dataclass(frozen=True, slots=True)
class Part:
    """What a section puts on the page.

    anchor: its id in the page. content: what the section's template draws. title: its heading, and its name in the
    contents; "" keeps it out of the contents.
    """

    anchor: str
    content: object
    title: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """A table, a plot or a card, under a heading where it has one.

    fit: the table is as wide as its text. framed: the table stands in a card.
    """

    heading: str = ""
    anchor: str = ""
    table: Table | None = None
    image: Image | None = None
    caption: str = ""
    card: Card | None = None
    fit: bool = False
    framed: bool = False


@dataclass(frozen=True, slots=True)
class Blocks:
    """The content of a section without a template of its own: sentences, cautions, then blocks in order."""

    leads: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = ()

    @property
    def tables(self) -> tuple[Table, ...]:
        return tuple(block.table for block in self.blocks if block.table is not None)

    @property
    def cards(self) -> tuple[Card, ...]:
        return tuple(block.card for block in self.blocks if block.card is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A section of the page.

    name: unique among sections. place: position on the page; smaller numbers come first. make: its parts, none where
    the records have nothing for it. template: the file `templates/TEMPLATE.html.jinja` that draws the content of each
    part; "blocks" draws `Blocks`.
    """

    name: str
    place: int
    make: Callable[[Material], Sequence[Part]]
    template: str = "blocks"


SECTIONS: Registry[Section] = Registry(
    "section", Section, package="tuner.report.sections", order=lambda section: (section.place, section.name)
)
