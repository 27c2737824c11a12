"""A section of the page: the seam by which the report grows."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Section:
    """`content` is what `templates/<template>.html.jinja` draws; with a `title` it is listed in the contents.

    To add one: a function from `Material` to a list of Sections (empty where there is nothing to say), its template,
    and its place in `page.SECTIONS`.
    """

    template: str
    anchor: str
    content: object
    title: str = ""
