"""Figures inside the page: SVG as a data URI, PNG where the SVG would be too heavy."""

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Protocol

HEAVY = 500_000  # bytes; a larger SVG becomes a PNG, because thousands of points look the same as pixels
PIXELS_PER_INCH = 96
FINE = 200  # dots per inch of a PNG


class Drawing(Protocol):
    """The part of a matplotlib Figure that is used."""

    def savefig(self, fname: Any, /, *, format: str, dpi: float) -> None: ...
    def get_size_inches(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Image:
    """source: a data URI. width, height: CSS pixels, so that the page does not jump while it loads."""

    source: str
    width: int
    height: int
    description: str


def image_of(drawing: Drawing, description: str) -> Image:
    """A figure as an image. description: the text for readers who cannot see it."""
    width, height = (round(float(inches) * PIXELS_PER_INCH) for inches in drawing.get_size_inches())
    kind, data = "svg+xml", _bytes_of(drawing, "svg")
    if len(data) > HEAVY:
        kind, data = "png", _bytes_of(drawing, "png")
    return Image(f"data:image/{kind};base64,{b64encode(data).decode()}", width, height, description)


def _bytes_of(drawing: Drawing, form: str) -> bytes:
    buffer = BytesIO()
    drawing.savefig(buffer, format=form, dpi=FINE)
    return buffer.getvalue()
