"""The numbers on docs/how-to/training-stability.md are those of the program."""

import re
from pathlib import Path

from tuner.analysis import loss_rises
from tuner.analysis.questions.stability import LONG
from tuner.analysis.stability_records import EARLY, PERCENTILE
from tuner.cli.commands import commands
from tuner.cli.program import parser_of
from tuner.design.study import MOST_TRACED
from tuner.rounds import stability_stages as stages

PAGE = " ".join((Path(__file__).parents[2] / "docs/how-to/training-stability.md").read_text(encoding="utf-8").split())


def test_the_numbers_of_the_page_are_those_of_the_program():
    multiples = ", ".join(f"{one:g}" for one in stages.ABOVE[:-1]) + f" and {stages.ABOVE[-1]:g} times"
    for words in (
        f"at {multiples} of it",
        f"each with {stages.SEEDS} seeds",
        f"for {stages.STEPS} steps",
        f"of trials above {MOST_TRACED:,} steps",
        f"a line from 0 to {stages.FACTOR:g} times the unstable rate",
        "then twice as many steps",
        "up to a tenth of the budget",
        f"the means of {loss_rises.BLOCKS} parts",
        f"more than {loss_rises.RISE:g} of the gain above the lowest of the {loss_rises.SPAN} parts before, for "
        f"{loss_rises.STRETCH} parts in a row",
        f"less than {loss_rises.RISE:g} of what it falls at the best rate",
        f"more than {loss_rises.SURE:g} standard deviations",
        f"more than {100 * LONG:g} % of the budget",
        f"at the {100 * PERCENTILE:.0f}th percentile",
        f"come {stages.REPORTS} times a trial",
    ):
        assert words in PAGE, words
    assert (stages.HOLD, EARLY) == (2, 0.1)


def test_every_option_of_the_page_is_one_of_the_command():
    known = {option for one in parser_of(commands()["stability"], "stability").params for option in one.opts}
    named = set(re.findall(r"`?(--\w[\w-]*)", PAGE))
    assert named <= known
    assert {"--above", "--seeds", "--steps", "--warmups", "--factor", "--yes", "--dry-run"} <= named
