"""What a cell of a table means: a number, a divergence, nothing, or one of the choices of the space file.

A choice is written as its text where only one choice reads so, else as JSON: null, true, 1, 1.0, "1" (the text).
`choice_of` reads both, and what pandas, spreadsheets and loggers make of them: 16.0 for 16, True for true, None.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.design.hyperparameters import Choice, Hyperparameter, Value
from tuner.errors import DeclarationError
from tuner.security import original_cell, safe_cell

UNKNOWN = "<NA>"  # a cell of a value that is not known, where an empty one would mean None
_NOTHING = ("", "na", "n/a", "<na>", "none", "null")  # what tools write into an empty cell
_NAN = ("nan", "nan(ind)", "1.#ind", "1.#qnan")
_INFINITE = ("inf", "infinity", "1.#inf")
_QUOTED = 80  # characters of a cell that a message shows
LARGEST = 2**53  # larger whole numbers are not exact


def is_nothing(cell: object) -> bool:
    """Whether a cell is empty, or has a word that tools write for an empty one."""
    return cell is None or cell is pd.NA or cell != cell or str(cell).strip().lower() in (*_NOTHING, "nan")


def numbers_in(column: pd.Series, where: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The numbers of a column, and which of its cells are empty (their number is NaN, too).

    nan and inf, in any spelling, are numbers: a divergence. Raises DeclarationError naming the first other text.
    """
    if pd.api.types.is_numeric_dtype(column):
        empty = column.isna().to_numpy(dtype=bool)
        return column.to_numpy(dtype=np.float64, na_value=np.nan), empty
    text = column.astype(object).where(column.notna(), "").astype(str)
    numbers = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64).copy()
    odd = np.flatnonzero(~np.isfinite(numbers))
    codes, cells = pd.factorize(text.iloc[odd].str.strip().str.lower())
    meant = np.array([_word(str(cell)) for cell in cells], dtype=object)[codes]
    wrong = np.flatnonzero(meant == "wrong")
    if len(wrong):
        place = int(odd[wrong[0]])
        raise DeclarationError(
            f"{where} in row {place + 2} is no number: {text.iloc[place]!r:.{_QUOTED}}; numbers are written like "
            "0.001, a divergence as nan or inf, and a cell without a measurement is empty"
        )
    numbers[odd] = [0.0 if isinstance(one, str) else one for one in meant]
    empty = np.zeros(len(numbers), dtype=bool)
    empty[odd] = meant == "empty"
    numbers[empty] = math.nan
    return numbers, empty


def _word(cell: str) -> float | str:
    """The meaning of a cell that is not a finite number: NaN, infinite, "empty" or "wrong"."""
    unsigned = cell.lstrip("+-")
    if cell in _NOTHING:
        return "empty"
    if unsigned in _NAN:
        return math.nan
    try:
        number = math.inf if unsigned in _INFINITE else float(unsigned)  # 1e400 is infinite
    except ValueError:
        return "wrong"
    return -number if cell.startswith("-") else number


def whole_numbers_in(column: pd.Series, where: str) -> NDArray[np.int64]:
    """Whole numbers, such as steps, also written as 40.0. Raises DeclarationError naming the first other cell."""
    numbers, _ = numbers_in(column, where)
    wrong = ~np.isfinite(numbers) | (numbers != np.round(numbers)) | (numbers < 0) | (numbers > LARGEST)
    if wrong.any():
        place = int(np.flatnonzero(wrong)[0])
        cell = "an empty cell" if is_nothing(column.iloc[place]) else f"{column.iloc[place]!r:.{_QUOTED}}"
        raise DeclarationError(f"{where} in row {place + 2} must be a whole number from 0 to 2^53: {cell}")
    return numbers.astype(np.int64)


def has_numbers(column: pd.Series) -> bool:
    """Whether every cell is a number, a divergence or empty, and one is not empty."""
    try:
        _, empty = numbers_in(column, "")
    except DeclarationError:
        return False
    return not empty.all() and not pd.api.types.is_bool_dtype(column)


def choice_cell(value: Value, choices: Sequence[Value]) -> str:
    """The cell that `choice_of` reads as `value`, and no other choice."""
    if isinstance(value, str) and value not in ("", UNKNOWN):
        try:
            read = choice_of(safe_cell(value), choices, "")
            if isinstance(read, str) and read == value:
                return value
        except DeclarationError:
            pass
    return json.dumps(value, ensure_ascii=False)


def with_choice_cells(
    table: pd.DataFrame, hyperparameters: Sequence[Hyperparameter], *, none: str = "null"
) -> pd.DataFrame:
    """A table of trials in which each choice is told from every other, and from a value that does not exist (NaN).

    `none` is how None is written. Columns of choices of one type stay as they are, but for texts that read as a word.
    """
    table = table.copy()
    for hyperparameter in hyperparameters:
        domain, name = hyperparameter.domain, hyperparameter.name
        if isinstance(domain, Choice) and {type(value) for value in domain.choices} not in ({int}, {float}, {bool}):
            cells = _cells_in_table(table[name].tolist(), domain.choices, none)
            table[name] = pd.Series(cells, index=table.index, dtype=object)
    return table


def with_none(hyperparameters: Sequence[Hyperparameter]) -> list[str]:
    """The hyperparameters of which None is a choice."""
    return [h.name for h in hyperparameters if isinstance(h.domain, Choice) and None in h.domain.choices]


def _cells_in_table(values: Sequence[object], choices: Sequence[Value], none: str) -> list[object]:
    """The cells of choices; None where the hyperparameter does not exist."""
    known = {repr(choice): choice_cell(choice, choices) for choice in choices}
    if "None" not in choices:
        known["None"] = none
    return [known.get(repr(_plain(value))) for value in values]


def choice_of(cell: object, choices: Sequence[Value], where: str) -> Value:
    """The choice that a non-empty cell means. Raises DeclarationError for a cell that means none, or could mean two."""
    text = cell if isinstance(cell, str) else json.dumps(_plain(cell), default=str)
    for candidate in dict.fromkeys((text, original_cell(text))):
        for found in _readings(candidate, choices):
            if len(found) == 1:
                return found[0]
            if found:
                could = " or ".join(json.dumps(value) for value in found)
                raise DeclarationError(f"{where}: {text!r:.{_QUOTED}} could be {could}; write it as one of these")
    known = ", ".join(choice_cell_in_words(value) for value in choices)
    raise DeclarationError(f"{where}: {text!r:.{_QUOTED}} is not among the choices {known} of the space file")


def choice_cell_in_words(value: Value) -> str:
    """A choice as a message names it: texts bare, everything else as JSON."""
    return f"{value:.{_QUOTED}}" if isinstance(value, str) else json.dumps(value)


def empty_choice(choices: Sequence[Value], where: str) -> tuple[Value, ...]:
    """The choice that an empty cell means where the hyperparameter exists: None or "", if that is a choice."""
    found = tuple(value for value in choices if value is None or value == "")
    if len(found) > 1:
        raise DeclarationError(f'{where} is empty, and both None and "" are among the choices: write null or ""')
    return found


def empty_means_a_choice(choices: Sequence[Value]) -> bool:
    """Whether an empty cell is read as a choice, so that an unknown value has to be written as a word."""
    return None in choices or "" in choices


def look_alike(choices: Sequence[Value]) -> list[Value]:
    """The choices that tables of other tools write alike, such as 1 and "1"."""
    texts = [str(choice).lower().removesuffix(".0") for choice in choices]
    return [choice for choice, text in zip(choices, texts, strict=True) if texts.count(text) > 1]


def _readings(text: str, choices: Sequence[Value]) -> Iterator[list[Value]]:
    """The choices that a text can mean, the strictest reading first."""
    yield _as_json(text, choices)
    yield [choice for choice in choices if isinstance(choice, str) and choice == text]
    text = text.strip()
    yield [choice for choice in choices if isinstance(choice, str) and choice.strip() == text]
    yield from (_where(reading, text, choices) for reading in (_is_same_word, _is_same_number, _is_same_list))


def _where(reads: Callable[[str, Value], bool], text: str, choices: Sequence[Value]) -> list[Value]:
    """The choices that a lenient reading finds, texts last."""
    found = [choice for choice in choices if reads(text, choice)]
    return [choice for choice in found if not isinstance(choice, str)] or found


def _as_json(text: str, choices: Sequence[Value]) -> list[Value]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return []
    found = [choice for choice in choices if type(choice) is type(value) and choice == value]
    return [choice for choice in found if repr(choice) == repr(value)] or found  # -0.0 is not 0.0


def _is_same_word(text: str, choice: Value) -> bool:
    """None, True and False however they are spelled, also where the choice is such a word."""
    words = {"none": "none", "null": "none", "nan": "none", "true": "true", "false": "false"}
    meant = words.get(text.lower())
    return meant is not None and meant == words.get(str(choice).lower())


def _is_same_number(text: str, choice: Value) -> bool:
    """16.0 and 1.6e1 are 16; 1.0 is true where a column of booleans was made one of numbers."""
    try:
        number, other = float(text), float("nan" if choice is None else choice)
    except (ValueError, OverflowError):
        return False
    return math.isclose(number, other, rel_tol=1e-9) and math.isfinite(number)


def _is_same_list(text: str, choice: Value) -> bool:
    """(64, 64) and [64,64]: lists and tuples, which a table holds as text."""
    return isinstance(choice, str) and choice[:1] in ("[", "(") and _list_text(text) == _list_text(choice)


def _list_text(text: str) -> str:
    plain = "".join(text.split()).replace("(", "[").replace(")", "]").replace("'", '"')
    return plain.replace(",]", "]")


def _plain(cell: object) -> object:
    """A scalar of numpy as one of Python."""
    return cell.item() if isinstance(cell, np.generic) else cell
