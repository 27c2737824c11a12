"""How untrusted text is shown to people: names, values, reasons and file names can hold anything.

A name may hold a line break and "next: rm -rf ~", an escape sequence that clears the terminal, or a mark that reverses
the reading direction. Therefore every text that a person reads passes one of these functions: on the terminal, in
logs, plots and pages. JSON and CSV keep every letter, because programs read them.
"""

import re
import shlex
import unicodedata
from collections.abc import Callable
from html import escape

LONGEST = 80  # characters of what a message quotes
LONGEST_LINE = 4000  # characters of a line of a message
# Letters and marks by category, but nothing can be seen of them.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")
# Control, format (bidirectional and zero-width marks among them), surrogate, private, unassigned; breaks of lines.
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_VISIBLE = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2")  # format, yet drawn
_COMMAND = re.compile(
    r"(?<=`)tuner ([a-z][a-z-]*)([^`\n]*)(?=`)|(?:(?<=: )|\A)tuner ([a-z][a-z-]*)((?:'[^']*'|[^'`\n;,(])*)"
)
_PLACEHOLDER = re.compile(r"(\btuner [a-z][a-z-]* )STUDY_FILE\b")


def shown(text: str) -> str:
    r"""`text` on one line: what cannot be seen, moves the cursor or turns the direction is `\x1b`, `\u202e`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(letter) if _is_hidden(letter) else letter for letter in text)


def shown_lines(text: str, indent: str = "  ") -> str:
    """`text` with its line breaks, later lines behind `indent`, so that no line looks like another message."""
    first, *others = text.split("\n")
    return "\n".join([one_line(first), *(indent * (line[:2] != indent) + one_line(line) for line in others)])


def in_html(text: str) -> str:
    """`text` as HTML shows it: no tag, no entity, no attribute, and nothing hidden."""
    return escape(shown(text))


def quoted(value: object, most: int = LONGEST) -> str:
    """`value` as a message quotes it: its repr on one line, cut where it is long, with its length then."""
    if isinstance(value, str | bytes):
        told = shown(repr(value[: most + 1]))
        return told if len(told) <= most + 2 else f"{_cut(told, most)} ({len(value):,} characters)"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 4 * most:
        return f"a whole number of {value.bit_length():,} bits"
    return shortened(shown(repr(value)), most)


def word(text: object) -> str:
    r"""`text` as one word of a shell command; what cannot be seen stands as `$'\x1b'`, which bash and zsh read."""
    plain = str(text)
    if shown(plain) == plain:
        return shlex.quote(plain)
    return f"$'{''.join(_in_shell(letter) for letter in plain)}'"


def shortened(text: str, most: int) -> str:
    """`text`, or its beginning and how long it is."""
    return text if len(text) <= most else f"{_cut(text, most)} ({len(text):,} characters)"


def counted(count: int, noun: str) -> str:
    """A number with its noun: 1 trial, 2 trials."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count:,} {noun if count == 1 else plural}"


def commands_with(text: str, more: Callable[[str], str]) -> str:
    """`text`, whose commands (between backticks, or after a colon) get the options that `more` has for their verb."""

    def completed(found: re.Match[str]) -> str:
        told = re.sub(r"(?<=\w)\. *$| +$", "", found[0])  # the dot that ends a sentence is no part of its command
        added = "" if "--storage" in told else more(found[1] or found[3])
        return told + added + found[0][len(told) :]

    return _COMMAND.sub(completed, text)


def commands_about(text: str, study_file: object) -> str:
    """`text`, whose commands name this file in place of STUDY_FILE, which stands where no file was known yet."""
    return _PLACEHOLDER.sub(lambda found: found[1] + word(study_file), text)


def one_line(text: str) -> str:
    """`text` as one line of at most LONGEST_LINE characters."""
    return shortened(shown(text), LONGEST_LINE)


def _cut(text: str, most: int) -> str:
    """The first characters, never half of an escape."""
    return re.sub(r"\\[xuU]?[0-9a-f]{0,7}$", "", text[: most - 1]) + "…"


def _is_hidden(letter: str) -> bool:
    return letter in _BLANK or (unicodedata.category(letter) in _HIDDEN and letter not in _VISIBLE)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def _in_shell(letter: str) -> str:
    if letter in "'\\":
        return f"\\{letter}"
    if not _is_hidden(letter):
        return letter
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else (f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def readable_seconds(seconds: float) -> str:
    """A duration as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"


def readable_bytes(count: float) -> str:
    """A size as a person says it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
