"""The parser of the command line: built from the table of commands, one command at a time, and its help pages."""

import copy
import inspect
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import nullcontext
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, cast, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command
from typer.models import ArgumentInfo

from tuner import __version__
from tuner.cli.commands import CliCommand, commands, grouped
from tuner.cli.exit_codes import exit_codes_in_short
from tuner.cli.given import GIVEN
from tuner.cli.options import loaded

COMPLETING = "_TUNER_COMPLETE"  # the environment in which a shell asks for offers
WIDEST = 110  # characters of a line of help
LEFT = 28  # of them for a name; longer names stand on a line of their own
_SETTINGS = {"help_option_names": ["-h", "--help"]}
_GROUPS = {"import": "Read a study that was run elsewhere into the storage"}
DOORS = """I have an Optuna study:
  tuner import optuna optuna.db --study mine
  tuner check mine
  tuner report mine

I have a torch model:
  Begin with a copy of studies/digits.py (docs/get-started/quickstart-torch.md). Then:
  tuner run my_study.py --dry-run    time and disk, before anything is trained
  tuner run my_study.py --yes        the whole playbook, and a report

Show me an example report:
  tuner demo

All commands: tuner --help. Help for one: tuner run --help. Version: {version}"""


@cache
def program() -> TyperGroup:
    """The command `tuner`, none of whose commands is loaded yet."""
    if COMPLETING in os.environ:
        loaded("typer.completion:completion_init")()
        GIVEN.warned = True  # a shell that asks for an offer is told nothing else
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.callback(cls=_Commands, context_settings=_SETTINGS)(_options)
    return cast(TyperGroup, get_command(app))  # a group, because it has a callback


def example_for(error: Any) -> str:
    """An example of the command whose argument is missing; "" for another error of the command line."""
    if "Missing" not in type(error).__name__ or error.ctx is None:
        return ""
    name = error.ctx.command_path.removeprefix("tuner ")
    return commands()[name].example if name in commands() else ""


def _version(asked: bool) -> None:
    if asked:
        print(f"tuner {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """The Deep Learning Tuning Playbook as a program."""


class _Lazy(MutableMapping[str, Any]):
    """The commands of a group, each built when it is first looked up."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(name)
        if name not in self._built:
            self._built[name] = self._build(name)
        return self._built[name]

    def _build(self, name: str) -> Any:
        found = commands().get(self._prefix + name)
        if found is not None:
            return parser_of(found, name)
        return _Commands(
            name=name, prefix=f"{self._prefix}{name} ", help=_GROUPS.get(name), context_settings=_SETTINGS
        )  # fmt: skip

    def __setitem__(self, name: str, command: Any) -> None:
        self._built[name] = command

    def __delitem__(self, name: str) -> None:
        del self._built[name]

    def __iter__(self) -> Iterator[str]:
        mine = (name.removeprefix(self._prefix) for name in commands() if name.startswith(self._prefix))
        return iter(dict.fromkeys(name.split()[0] for name in mine))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in list(iter(self))


class _Commands(TyperGroup):
    """A group whose commands are loaded when they are needed."""

    def __init__(self, *, prefix: str = "", **given: Any) -> None:
        given.pop("commands", None)
        super().__init__(**given)
        self.prefix = prefix
        self.commands = _Lazy(prefix)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`tuner` alone shows where to begin; a group of commands that is named alone shows its help."""
        if not args and not ctx.resilient_parsing:
            print(self.get_help(ctx) if self.prefix else DOORS.format(version=__version__))
            raise typer.Exit
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Names from the table; no command is loaded for them."""
        from_options = super(TyperGroup, self).shell_complete(ctx, incomplete)
        return [*_items(self._listed(), incomplete), *from_options]

    def _listed(self) -> dict[str, str]:
        known = {name.removeprefix(self.prefix): one.help for name, one in commands().items()}
        return {name: known.get(name, _GROUPS.get(name, "")) for name in self.commands}

    def get_usage(self, ctx: Any) -> str:
        """The usage line of the help page, for errors too."""
        return f"Usage: {_group_usage(ctx)}"

    def get_help(self, ctx: Any) -> str:
        """The help page, from the table alone."""
        return _group_help(self, ctx)


class _Command(TyperCommand):
    """A command with a plain help page: no boxes, and no type behind an option that takes no value."""

    record: CliCommand

    def get_usage(self, ctx: Any) -> str:
        """The usage line of the help page, for errors too."""
        return f"Usage: {_usage(self, ctx)}"

    def get_help(self, ctx: Any) -> str:
        """The help page: what the command does, an example, its options by what they are about."""
        return _command_help(self, ctx)


def _items(names: Mapping[str, str], incomplete: str) -> list[Any]:
    item = loaded("typer.core:CompletionItem")
    return [item(name, help=text) for name, text in names.items() if name.startswith(incomplete)]


def parser_of(record: CliCommand, name: str) -> TyperCommand:
    """The parser of a command, from the dataclass of its options."""
    options = loaded(record.options)
    hints = get_type_hints(options, include_extras=True)
    inherited = {one.name for base in options.__bases__ if is_dataclass(base) for one in fields(base)}
    own_first = sorted(fields(options), key=lambda one: one.name in inherited)
    parameters = [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if one.default is MISSING else one.default,
            annotation=_with_a_word(one.name, hints[one.name]),
        )
        for one in own_first
        if one.metadata.get("option", True)
    ]

    def call(**given: Any) -> Any:
        """Run the command, within what its options prepare for it before its module is imported."""
        values = options(**given)
        with getattr(values, "prepared", lambda: nullcontext(values))() as ready:
            run, around = loaded(record.run), getattr(ready, "around", "")
            return loaded(around)(ready, run) if around else run(ready)

    call.__annotations__ = {one.name: one.annotation for one in parameters}
    call.__dict__["__signature__"] = inspect.Signature(parameters)  # what typer reads
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(name, cls=_Command, help=inspect.getdoc(options), context_settings=_SETTINGS)(call)
    built = cast(_Command, get_command(app))
    built.record = record
    return built


def _with_a_word(name: str, hint: Any) -> Any:
    """The annotation of a parameter with a word for its value, where it takes one and has none."""
    kind, *about = get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
    if not about or about[0].metavar is not None:
        return hint
    plain = next((one for one in get_args(kind) if one is not type(None)), kind)
    word = name.upper() if isinstance(about[0], ArgumentInfo) else _word_for(plain)
    if word is None:
        return hint
    info = copy.copy(about[0])
    info.metavar = word
    return Annotated[kind, info]


def _word_for(kind: Any) -> str | None:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(one.value) for one in kind)
    return {int: "N", float: "X", str: "TEXT", Path: "PATH"}.get(kind)


# Help pages


def _group_usage(ctx: Any) -> str:
    return f"{ctx.command_path} COMMAND ..."


def _usage(command: _Command, ctx: Any) -> str:
    parameters: list[Any] = list(command.get_params(ctx))
    arguments = [one for one in parameters if one.param_type_name == "argument"]
    names = " ".join(f"[{one.metavar}]" if not one.required else str(one.metavar) for one in arguments)
    return f"{ctx.command_path} {'[OPTIONS] ' * (len(parameters) > len(arguments))}{names}".rstrip()


def _group_help(group: _Commands, ctx: Any) -> str:
    lines = [_heading("Usage: ") + _group_usage(ctx), "", *_paragraphs(group.help or ""), ""]
    listed = group._listed()
    if not group.prefix:
        for title, records in grouped():
            lines += [_heading(f"{title}:"), *_two_columns((one.name, one.help) for one in records), ""]
    else:
        lines += [_heading("Commands:"), *_two_columns(listed.items()), ""]
    lines += [_heading("Options:"), *_two_columns(_rows(group.get_params(ctx), ctx)), ""]
    if not group.prefix:
        lines += [_heading("Exit codes:"), *(f"  {line}" for line in exit_codes_in_short()), ""]
        lines += ["New here? Run tuner alone. Completion in your shell: tuner completion --help"]
    return "\n".join(lines).rstrip("\n")


def _command_help(command: _Command, ctx: Any) -> str:
    parameters: list[Any] = list(command.get_params(ctx))
    arguments = [one for one in parameters if one.param_type_name == "argument"]
    lines = [_heading("Usage: ") + _usage(command, ctx), "", *_paragraphs(command.help or ""), ""]
    if command.record.example:
        lines += [_heading("Example: ") + command.record.example, ""]
    if arguments:
        lines += [_heading("Arguments:"), *_two_columns(_rows(arguments, ctx)), ""]
    if command.record.choices:
        choices = loaded(command.record.choices)()
        lines += [_heading(f"{arguments[0].metavar}:"), *_two_columns(choices), ""]
    options = [one for one in parameters if one.param_type_name == "option"]
    titles = dict.fromkeys(["Options", *(one.rich_help_panel or "Options" for one in options)])
    for title in titles:
        mine = [one for one in options if (one.rich_help_panel or "Options") == title]
        if mine:
            lines += [_heading(f"{title}:"), *_two_columns(_rows(mine, ctx)), ""]
    return "\n".join(lines).rstrip("\n")


def _heading(text: str) -> str:
    return typer.style(text, bold=True)


def _rows(parameters: Sequence[Any], ctx: Any) -> Iterator[tuple[str, str]]:
    for one in parameters:
        record = one.get_help_record(ctx)
        if record is None:
            continue
        left = str(one.metavar)
        if one.param_type_name == "option":
            flags = sorted(one.opts, key=len) + list(one.secondary_opts)
            word = "" if getattr(one, "is_flag", False) else f" {one.metavar or ''}"
            left = (", ".join(flags) + word).rstrip()
        yield left, record[1].removesuffix("[required]").rstrip() if left[0] != "-" else record[1]


def _width() -> int:
    try:
        columns = int(os.environ.get("COLUMNS", 0)) or os.get_terminal_size(sys.stdout.fileno()).columns
    except (ValueError, OSError, AttributeError):  # no number; no terminal; no output at all
        columns = 100
    return min(WIDEST, columns)


def _paragraphs(text: str) -> list[str]:
    parts = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(textwrap.fill(" ".join(part.split()), _width()) for part in parts).split("\n")


def _two_columns(rows: Any) -> Iterator[str]:
    """Names on the left, what they mean on the right, wrapped between words."""
    known = list(rows)
    left = min(LEFT, max((len(name) for name, _ in known), default=0)) + 4
    for name, text in known:
        lines = textwrap.wrap(text, max(20, _width() - left)) or [""]
        if len(name) > left - 4:
            yield f"  {name}"
            yield from (" " * left + line for line in lines)
        else:
            yield f"  {name}".ljust(left) + lines[0]
            yield from (" " * left + line for line in lines[1:])
