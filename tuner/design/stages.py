"""Stages: a campaign whose trials start from the weights that another campaign selected, or from a file of weights.

Each stage is a campaign, with its own objective, data, sweep, rounds and budget (C1, C6). What it takes over is said by
`best_of` or `weights_from`: which names of the state dict are carried. All others are fresh, which means as
`model(point)` makes them. Optimizer and schedule begin again (C7). This module knows campaigns by their names, and does
not import torch.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from tuner.design.hyperparameters import Choice, Hyperparameter
from tuner.design.names import Name
from tuner.design.round import Round
from tuner.design.space import SearchSpace
from tuner.errors import DeclarationError
from tuner.shown import quoted

MOST_CANDIDATES = 8  # [P] checkpoints of one stage that a later one compares
_OF_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")  # endings of files of weights
START_FROM = "start_from"  # the hyperparameter that chooses among candidates: 1 is the best


class StageSource(Protocol):
    """What a stage starts from: a campaign of the same file."""

    @property
    def name(self) -> str | None: ...

    @property
    def rounds(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class StartFrom:
    """Where the trials of a campaign start from; made by `best_of` and `weights_from`.

    source: a campaign, or the name of one; once a study file is loaded it is the name. file: a file of weights in its
    place. parameters: which entries of the model's state dict are carried, as a pattern of their names; fresh: which
    of these are not. renamed: the
    beginning of a name here to what it is called there. sha256: of the file. steps: behind the weights of a file.
    """

    source: StageSource | str = ""
    file: Path | None = None
    parameters: str = "*"
    fresh: str = ""
    candidates: int = 1
    storage: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""
    steps: int = 0

    @property
    def campaign(self) -> str:
        """The name of the campaign that it starts from; "" of a file, and of a campaign that has none yet."""
        return self.source if isinstance(self.source, str) else self.source.name or ""

    @property
    def words(self) -> str:
        """What it starts from, for a person."""
        return str(self.file) if self.file is not None else self.campaign


@dataclass(frozen=True, slots=True)
class Stage:
    """A campaign of a study file with its name and its variable; the source of `start_from` is a name, too.

    of_file: the names of all campaigns of its file, in the order of training. file: the study file, None of a campaign
    that was passed as an object. rounds_before: the declared rounds but controls of the stage that it starts from; 0 of
    one that is declared elsewhere. before: that stage, where it is one of this file. candidates: so many of its best
    trials are what later stages of its file start from.
    """

    name: str
    campaign: Any
    variable: str = ""
    of_file: tuple[str, ...] = ()
    file: Path | None = None
    rounds_before: int = 0
    before: "Stage | None" = field(default=None, repr=False)
    candidates: int = 1

    @property
    def called(self) -> str:
        """What a command calls it."""
        return self.name if self.file is None else named_in(self.file, self.name, self.of_file)

    @property
    def words(self) -> str:
        """Its name, and what it starts from, for a person."""
        start = self.campaign.start_from
        return self.name if start is None else f"{self.name}, starts from {start.words}"


_SUFFIX = ".py:"  # between a study file and the name of one of its campaigns


def split_stage(given: str | Path) -> tuple[Path, str]:
    """The study file and the name of a campaign in it: "studies/digits.py:pretraining"; "" where none is named.

    The colon of a drive ("C:/digits.py") is no such colon, and a name may hold one. A file that is there under the
    whole text is that file.

    >>> split_stage("digits.py:pre")[1], split_stage("C:/digits.py")[1], split_stage("digits.py:run:2")[1]
    ('pre', '', 'run:2')
    """
    text = str(given)
    places = [found.start() for found in re.finditer(re.escape(_SUFFIX), text)]
    if not places or Path(text).is_file():
        return Path(given), ""
    splits = [(Path(text[: place + len(_SUFFIX) - 1]), text[place + len(_SUFFIX) :]) for place in places]
    return next((one for one in splits if one[0].is_file()), splits[0])


def is_study_file(given: str | Path) -> bool:
    """Whether a text names a study file, or a campaign in one."""
    return str(split_stage(given)[0]).endswith(".py")


def named_in(file: str | Path, name: str, of_file: Collection[str]) -> str:
    """What a command calls a campaign of a file: FILE:NAME where the file has several, else FILE."""
    return f"{file}:{name}" if len(of_file) > 1 else str(file)


def best_of(
    source: StageSource | str,
    parameters: str = "*",
    *,
    fresh: str = "",
    candidates: int = 1,
    storage: str | None = None,
    renamed: Mapping[str, str] | None = None,
) -> StartFrom:
    """Start from the checkpoint that an earlier stage selected: what was adopted there, else its best (C1, C7).

    source: a `Campaign` of the same file, or the name of one that is recorded. parameters: which entries of the model's
    state dict are carried, parameters and buffers: a name, or a pattern like "encoder.*", several of them with "|"
    between. Each one that is carried must be there with the same shape. fresh: a pattern of those among them that
    are not carried, like "head.*|*.lora_*"; it need not match any. candidates: how many of
    the best trials are compared, by the metric of the later stage; they become the hyperparameter `start_from`, which
    is scientific. storage: of the earlier stage, where that is another one: a path or URL.
    renamed: the beginning of a name here, to what it is called there: {"backbone": "encoder"}.

    Raises DeclarationError.

    >>> best_of("digits-pretrained", parameters="encoder.*").campaign
    'digits-pretrained'
    """
    if not isinstance(source, str) and not hasattr(source, "rounds"):
        raise DeclarationError(
            f"best_of takes a Campaign of this file, or the name of a recorded one, got {source!r:.80}; a file of "
            'weights is weights_from("file.safetensors")'
        )
    if isinstance(source, str) and (not source.strip() or source.endswith(_OF_WEIGHTS)):
        raise DeclarationError(
            f"best_of takes the name of a recorded campaign, got {quoted(source)}; a file of weights is "
            'weights_from("file.safetensors")'
        )
    if isinstance(candidates, bool) or not isinstance(candidates, int) or not 1 <= candidates <= MOST_CANDIDATES:
        raise DeclarationError(f"candidates is a whole number from 1 to {MOST_CANDIDATES}, got {candidates!r}")
    return StartFrom(
        source,
        parameters=_checked_pattern(parameters),
        fresh=fresh and _checked_pattern(fresh, "fresh"),
        candidates=candidates,
        storage=storage,
        renamed=_checked_names(renamed),
    )


def weights_from(
    file: str | Path,
    parameters: str = "*",
    *,
    fresh: str = "",
    sha256: str = "",
    steps: int = 0,
    renamed: Mapping[str, str] | None = None,
) -> StartFrom:
    """Start from a file of weights that was downloaded, or trained elsewhere.

    file: in the format of safetensors, or a state dict that `torch.save` wrote (read with weights_only); a path that is
    not absolute lies beside the study file. sha256: what the file must have, 64 hex digits; by default what it has at
    the first launch counts. steps: updates behind the weights, where they are known; they count as inherited.
    parameters, fresh, renamed: as for `best_of`.

    Raises DeclarationError.
    """
    if not isinstance(file, str | Path) or not str(file).strip():
        raise DeclarationError(f"weights_from takes the path of a file of weights, got {file!r:.80}")
    if not isinstance(sha256, str) or (sha256 and (len(sha256) != 64 or set(sha256.lower()) - set("0123456789abcdef"))):
        raise DeclarationError(f"sha256 of weights_from is text of 64 hex digits, got {sha256!r:.80}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise DeclarationError(f"steps of weights_from is a whole number of updates, 0 or more, got {steps!r}")
    return StartFrom(
        file=Path(file),
        parameters=_checked_pattern(parameters),
        fresh=fresh and _checked_pattern(fresh, "fresh"),
        sha256=sha256.lower(),
        steps=steps,
        renamed=_checked_names(renamed),
    )


def _checked_pattern(parameters: object, name: str = "parameters") -> str:
    if not isinstance(parameters, str) or not all(part.strip() for part in parameters.split("|")):
        raise DeclarationError(
            f'{name} is a pattern of names, like "encoder.*", or several with | between, like '
            f'"encoder.*|norm.*"; "*" carries all; got {parameters!r:.80}'
        )
    return parameters


def _checked_names(renamed: Mapping[str, str] | None) -> dict[str, str]:
    if renamed is None:
        return {}
    if not isinstance(renamed, Mapping) or not all(isinstance(one, str) for pair in renamed.items() for one in pair):
        raise DeclarationError(
            'renamed maps the beginning of a name here to what it is called there, like {"backbone": "encoder"}, got '
            f"{renamed!r:.80}"
        )
    return {here.removesuffix("."): there.removesuffix(".") for here, there in renamed.items()}


def rounds_with_start(start: object, rounds: tuple[Round, ...]) -> tuple[Round, ...]:
    """The rounds of a campaign with this start; several candidates are a scientific choice in their spaces.

    Raises DeclarationError for what is no start, and for controls of a campaign that starts from nothing.
    """
    controls = [one for one in rounds if one.start is not None]
    if start is None:
        if controls:
            raise DeclarationError(
                f'round {controls[0].goal!r} has start="scratch", and this campaign starts from nothing else: give '
                "Campaign(start_from=best_of(...)), or leave it out"
            )
        return rounds
    if not isinstance(start, StartFrom):
        raise DeclarationError(
            f"start_from is best_of(...), or weights_from(...) for a file of weights, got {_given(start)}"
        )
    if rounds[0].start is not None:
        raise DeclarationError(
            f'round {rounds[0].goal!r} has start="scratch" and is the first: it is a control of the rounds that start '
            "from the weights, and comes after them"
        )
    return tuple(_with_candidates(one, start.candidates) for one in rounds)


def _given(start: object) -> str:
    """What was given in the place of `best_of` or `weights_from`, and how to write it where that can be told."""
    if isinstance(start, Path) or (isinstance(start, str) and start.endswith(_OF_WEIGHTS)):
        return f'{str(start)!r}: write start_from=weights_from("{start}")'
    if isinstance(start, str):
        return f'{start!r:.80}: write start_from=best_of("{start}"), or best_of of the variable of a campaign'
    if hasattr(start, "rounds"):
        return "a campaign: write start_from=best_of(...) of it"
    return f"{start!r:.80}"


def _with_candidates(declared: Round, count: int) -> Round:
    """A round whose trials choose among the candidates, the best of which is 1. Raises DeclarationError."""
    space = declared.space
    if space is None:
        return declared
    choice = Hyperparameter(START_FROM, Choice(tuple(range(1, count + 1)))) if count > 1 else None
    if choice in space.hyperparameters:  # the campaign is a changed copy of one that was checked before
        return declared
    names = [*(one.name for one in space), *(name for name, _ in space.fixed)]
    if START_FROM in {Name.of(name).short for name in names}:
        raise DeclarationError(
            f"{START_FROM} is no hyperparameter of a space: best_of(..., candidates=3) makes it one, and puts it there"
        )
    if choice is None or declared.start is not None:
        return declared
    whole = SearchSpace.of((*space.hyperparameters, choice), space.fixed)
    return replace(declared, space=whole, scientific=(*declared.scientific, START_FROM))


def staged(found: Mapping[str, Any]) -> list[Stage]:
    """The campaigns of one file, by name, in the order in which they are trained: each after what it starts from.

    `found`: in the order of their declaration, which is kept where nothing else is said. Sources are named as their
    campaigns are. Raises DeclarationError for a circle, and for a source without a name that is not among them.
    """
    names = {id(campaign): name for name, campaign in found.items()}
    stages = {name: Stage(name, _by_name(name, campaign, names)) for name, campaign in found.items()}
    done: dict[str, Stage] = {}
    for name in stages:
        for stage in _with_sources(name, stages, ()):
            done.setdefault(stage.name, stage)
    whole: dict[str, Stage] = {}
    for stage in done.values():  # what a stage starts from comes before it
        before = _source_among(whole, stage.campaign.start_from)
        rounds = 0 if before is None else sum(one.start is None for one in before.campaign.rounds)
        wanted = [one.campaign.start_from for one in done.values() if one.campaign.start_from is not None]
        counts = [start.candidates for start in wanted if start.campaign == stage.name and start.storage is None]
        whole[stage.name] = replace(
            stage, of_file=tuple(done), rounds_before=rounds, before=before, candidates=max(counts, default=1)
        )
    return list(whole.values())


def _source_among(stages: Mapping[str, Stage], start: StartFrom | None) -> Stage | None:
    """What a stage starts from, where that is among these and not elsewhere."""
    return None if start is None or start.storage is not None else stages.get(start.campaign)


def _with_sources(name: str, stages: Mapping[str, Stage], above: tuple[str, ...]) -> Iterator[Stage]:
    """A stage and before it all stages of the file that it starts from."""
    if name in above:
        circle = " -> ".join((*above[above.index(name) :], name))
        raise DeclarationError(f"these stages start from each other, and none can be the first: {circle}")
    start = stages[name].campaign.start_from
    if start is not None and start.campaign in stages:
        yield from _with_sources(start.campaign, stages, (*above, name))
    yield stages[name]


def chain_to(stages: list[Stage], name: str) -> list[Stage]:
    """The stages that lead to the one called `name`, the first of all first, itself last."""
    return list(_with_sources(name, {one.name: one for one in stages}, ()))


def with_sources(campaign: Any) -> dict[str, Any]:
    """A campaign that is passed as an object, after all that it starts from, by name. Raises DeclarationError."""
    found: dict[str, Any] = {}
    start = campaign.start_from
    if start is not None and start.file is None and not isinstance(start.source, str):
        if not start.source.name:
            raise DeclarationError(
                f"{campaign.name} starts from a campaign without a name: give it one, Campaign(..., name='pretrained')"
            )
        found |= with_sources(start.source)
    if found.setdefault(campaign.name, campaign) is not campaign:
        raise DeclarationError(f"two stages are called {quoted(campaign.name)}; each needs a name of its own")
    return found


def _by_name(name: str, campaign: Any, names: Mapping[int, str]) -> Any:
    start = campaign.start_from
    if start is None or start.file is not None or isinstance(start.source, str):
        return campaign
    source = names.get(id(start.source)) or start.source.name
    if not source:
        raise DeclarationError(
            f"{name} starts from a campaign without a name that is no variable of the file: give it a name, "
            "Campaign(..., name='pretrained')"
        )
    return replace(campaign, start_from=replace(start, source=source))
