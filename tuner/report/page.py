"""The whole page: its sections in order, and how it is written to a file.

The answer comes first, then what it rests on: findings before plots, then the campaign in the order it was run.
"""

import os
from contextlib import suppress
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from tuner.errors import InputError
from tuner.records.hourly_price import HourlyPrice
from tuner.report.material import Asks, nothing_more, read_material
from tuner.report.section import SECTIONS
from tuner.security import make_private_folder, plain_name, without_password
from tuner.shown import commands_about, commands_with, shown, word
from tuner.storage.engine import DEFAULT_FILE
from tuner.storage.store import Ledger


def write_report(
    ledger: Ledger, campaign: str, target: Path, also: Asks = nothing_more, price: HourlyPrice | None = None
) -> None:
    """Write the page of a campaign; an older page at `target` is replaced in one step.

    also: further findings about each round, which need more than this package imports (importances need Optuna).
    price: of an hour of a worker; then the page says what was spent.

    Raises StorageError for an unknown campaign, InputError where the page cannot be written.
    """
    page = report_html(ledger, campaign, also, price)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        make_private_folder(target.parent)
        unfinished.write_text(page, encoding="utf-8", errors="replace")
        unfinished.replace(target)
    except OSError as error:
        raise InputError(f"cannot write the report to {target}: {error.strerror}; name another file with -o") from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def report_path(ledger: Ledger, campaign: str) -> Path:
    """The default file of a campaign's report: beside the storage, one file for each campaign."""
    return (ledger.folder or Path("runs")) / f"{plain_name(campaign)}.html"


def report_html(ledger: Ledger, campaign: str, also: Asks = nothing_more, price: HourlyPrice | None = None) -> str:
    """The page as text. Raises StorageError for an unknown campaign."""
    material = read_material(ledger, campaign, also, price)
    parts = [(section.template, part) for section in SECTIONS for part in section.make(material)]
    launches = (launch for study in reversed(material.studies) for launch in reversed(study.launches))
    file = next((launch.study_file for launch in launches if launch.study_file), None)
    page = _templates(_place_of(ledger), file).get_template("page.html.jinja")
    return page.render(title=campaign, parts=parts)


def _place_of(ledger: Ledger) -> str:
    """The option that the page's commands need to find these records; "" for records at the default place."""
    file = ledger.file
    if file is not None and file == DEFAULT_FILE.absolute():
        return ""
    return f" --storage {word(file or without_password(ledger.url))}"


def _templates(place: str, file: str | None) -> Environment:
    """Templates escape every value, whatever their names, and an unknown name in a template is an error."""

    def on_one_line(value: object) -> object:
        """A value as a template shows it: hidden characters of text are escaped; markup was made of such text."""
        plain = isinstance(value, str) and not hasattr(value, "__html__")
        if not plain:
            return value
        told = commands_with(shown(str(value)), lambda verb: place)
        return told if file is None else commands_about(told, file)

    return Environment(
        loader=PackageLoader("tuner.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=on_one_line,
        trim_blocks=True,
        lstrip_blocks=True,
    )
