"""Printing: frames and findings on stdout, everything else on stderr."""

import json
import math
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from tuner.analysis.finding import NOTHING_TO_DO, Finding, needing_action
from tuner.analysis.questions.failed_trials import failed_findings
from tuner.analysis.study_frames import StudyFrames
from tuner.cli.exit_codes import Exit
from tuner.cli.given import completed
from tuner.cli.options import Format
from tuner.cli.tables import fitting, natural_width, table_of
from tuner.security import safe_cell
from tuner.shown import readable_bytes as readable_bytes
from tuner.shown import readable_seconds as readable_seconds
from tuner.shown import shown, shown_lines

_COMMAND = re.compile(r"`[^`]*`|(?<=: )tuner [^;,(]*")
_JOINED = "\ue000"  # stands for a space inside a command while lines are broken; no text that is shown can hold it
_COLOURS = {"act": "yellow", "fine": "green", "told": "default", "open": "bright_black"}


def console(stderr: bool = False) -> Console:
    """A console that keeps tables whole when nobody reads them on a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else max(160, shutil.get_terminal_size().columns)
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False)


def say(message: str) -> None:
    """A line for the person at the terminal, not for a pipe. A terminal gets it wrapped between words."""
    line = shown_line(message)
    if sys.stderr.isatty():
        line = wrapped(line, shutil.get_terminal_size().columns)
    print(line, file=sys.stderr)


def wrapped(text: str, width: int) -> str:
    """Lines of at most `width` characters, broken between words and never inside a command, which somebody may copy."""
    lines = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip())]
        whole = _COMMAND.sub(lambda found: found[0].replace(" ", _JOINED), line)
        parts = textwrap.wrap(whole, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        lines += parts or [""]
    return "\n".join(lines).replace(_JOINED, " ")


def shown_line(message: str) -> str:
    """One line of at most some thousand characters, whose commands find the records that this one was given."""
    return shown_lines(shown(completed(message)))


def show(line: str, style: str = "", whole: bool = False) -> None:
    """A line of what was asked for, on stdout; `whole`, or where nobody reads on a terminal, it is never broken."""
    console().print(Text(shown_line(line), style=style), soft_wrap=whole or not sys.stdout.isatty())


def next_step(*commands: str) -> None:
    """The last words of a command: what to do next."""
    for command in commands:
        print(f"next: {shown(command)}", file=sys.stderr)


def emit_frame(
    frame: pd.DataFrame, form: Format, title: str = "", spare: Sequence[str] = (), nullable: Sequence[str] = ()
) -> None:
    """Print a frame as a table, as JSON records or as CSV; of a table too wide for the terminal `spare` goes first.

    `nullable`: columns in which None is a value (null in JSON); what does not exist (NaN) is left out of the record.
    """
    if form is Format.json:
        records = [
            {str(k): _plain(v) for k, v in row.items() if not (k in nullable and v is not None and v != v)}
            for row in frame.to_dict(orient="records")
        ]
        print(json.dumps(records, indent=2, allow_nan=False))
    elif form is Format.csv:
        frame = frame.map(safe_cell).rename(columns=safe_cell)
        print(frame.to_csv(index=False), end="")
    else:
        _print_table(frame, title, spare)


def _print_table(frame: pd.DataFrame, title: str, spare: Sequence[str]) -> None:
    """Whole where nobody reads on a terminal: a row is a line there."""
    if not sys.stdout.isatty():
        whole = Console(width=max(natural_width(frame), len(title)), highlight=False)
        whole.print(table_of(frame, title), crop=False)
        return
    out = console()
    shown, left_out = fitting(frame, out.width, spare)
    out.print(table_of(shown, title, folded=True))
    if left_out:
        say(f"no room for {', '.join(map(str, left_out))}: widen the terminal, or -f csv")


def emit_findings(
    campaign: str, study: str, findings: Sequence[Finding], form: Format, thresholds: bool = False
) -> None:
    """Print findings; JSON has the documented form, text the thresholds only where they are asked for."""
    if form is Format.json:
        round_number = int(study.split("-")[1]) if study.startswith("round-") else None
        whole = {"study": campaign, "round": round_number, "findings": [finding.to_json() for finding in findings]}
        print(json.dumps(whole, indent=2, allow_nan=False))
    elif form is Format.csv:
        rows = [
            {"question": f.question, "subject": f.subject, "verdict": f.verdict, "strength": f.strength,
             "summary": f.summary, "action": f.action}
            for f in findings
        ]  # fmt: skip
        emit_frame(pd.DataFrame(rows), form)
    else:
        for finding in findings:
            _print_finding(finding, thresholds)


def _print_finding(finding: Finding, thresholds: bool) -> None:
    mark = "⚠ " if finding.needs_action else ""
    verdict = Text(finding.verdict, style=f"bold {_COLOURS[finding.tone]}")
    head = Text(shown(f"{mark}{finding.heading} "), style="bold") + verdict
    console().print(head + Text(f"  ({finding.evidence_words})", style="dim"))
    show(f"  {finding.summary}")
    for caveat in finding.caveats:
        show(f"  note: {caveat}", style="dim")
    if finding.action and finding.action != NOTHING_TO_DO:
        show(f"  → {finding.action}")
    if thresholds and finding.thresholds:
        show(f"  thresholds: {', '.join(f'{name} {value:g}' for name, value in finding.thresholds.items())}", "dim")


def say_failed(frames: StudyFrames) -> None:
    """How many trials of a study FAILED, where a single question is answered without them."""
    for finding in failed_findings(frames):
        say(f"note: {finding.summary}")


def exit_code(findings: Sequence[Finding]) -> int:
    """FINDING when somebody should act, else FINE."""
    return Exit.FINDING if needing_action(findings) else Exit.FINE


def _plain(value: Any) -> Any:
    if value is pd.NA:
        return None
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
