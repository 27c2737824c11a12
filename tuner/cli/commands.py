"""The table of commands. A command's modules are loaded only when it is called, or asked for help or completion.

A plugin adds a command by `tuner.register(Command(...))`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tuner.registry import Registry


class Group(StrEnum):
    """The headings of the help page, in their order."""

    TRAIN = "Train"
    READ = "Read"
    DECIDE = "Decide"
    EXCHANGE = "Exchange"
    OPERATE = "Operate"


@dataclass(frozen=True, slots=True)
class Command:
    """One command of `tuner`.

    name: as it is typed; "import optuna" is the command `optuna` of the group of commands `import`.
    help: one line for the help page. The command's own page shows the docstring of its options.
    options: "module:class", a frozen dataclass whose fields are the options, annotated as typer reads them. The module
        imports nothing heavy.
    run: "module:function", which is called with one value of that class; what it returns is the exit code, None is 0.
    example: a whole command, for the help and for an error about a missing argument.
    choices: "module:function", which gives names and what they mean, for the command's own page; "" for none.
    """

    name: str
    help: str
    group: Group
    options: str
    run: str
    example: str = ""
    choices: str = ""


_TRAINING, _READING, _STORAGE = (f"tuner.cli.{name}_options" for name in ("training", "reading", "storage"))

COMMANDS: Registry[Command] = Registry("command", Command, package=__name__)

RUN = Command(
    "run",
    "Run the whole playbook: sweep, rounds, findings, report",
    Group.TRAIN,
    f"{_TRAINING}:Run",
    "tuner.cli.run:run",
    "tuner run studies/digits.py --dry-run",
)
PLAN = Command(
    "plan",
    "Show rounds, trials, steps and cost before anything is trained",
    Group.TRAIN,
    f"{_TRAINING}:Plan",
    "tuner.cli.plan:plan",
    "tuner plan studies/digits.py --total-steps 100000",
)
SWEEP = Command(
    "sweep",
    "Sweep constant learning rates and find the step budget",
    Group.TRAIN,
    f"{_TRAINING}:Sweep",
    "tuner.cli.sweep:sweep",
    "tuner sweep studies/digits.py",
)
LAUNCH = Command(
    "launch",
    "Train one round, or continue with it",
    Group.TRAIN,
    f"{_TRAINING}:Launch",
    "tuner.cli.launch:launch",
    "tuner launch studies/digits.py --round 1",
)
EXPLOIT = Command(
    "exploit",
    "Run Bayesian optimization in a round's search space",
    Group.TRAIN,
    f"{_TRAINING}:Exploit",
    "tuner.cli.exploit:exploit",
    "tuner exploit studies/digits.py --trials 32",
)
BUDGET_CURVE = Command(
    "budget-curve",
    "Train one configuration for several lengths, and show the gain",
    Group.TRAIN,
    f"{_TRAINING}:BudgetCurve",
    "tuner.cli.budget_curve:budget_curve",
    "tuner budget-curve studies/digits.py --lengths 200,400,800",
)
WORKER = Command(
    "worker",
    "Help with a launch, on this or another machine",
    Group.TRAIN,
    f"{_TRAINING}:Worker",
    "tuner.cli.launch:worker",
    "tuner worker studies/digits.py",
)
STATUS = Command(
    "status",
    "Show the studies in the storage and how far they are",
    Group.READ,
    f"{_READING}:Status",
    "tuner.cli.listings:status",
    "tuner status",
)
CHECK = Command(
    "check",
    "Answer every question of the checklist: verdict, evidence, action",
    Group.READ,
    f"{_READING}:Check",
    "tuner.cli.findings:check",
    "tuner check digits",
)
BEST_STEPS = Command(
    "best-steps",
    "Was the step budget right?",
    Group.READ,
    f"{_READING}:BestSteps",
    "tuner.cli.findings:best_steps",
    "tuner best-steps digits",
)
BOUNDARIES = Command(
    "boundaries",
    "Was the search space wide enough?",
    Group.READ,
    f"{_READING}:Boundaries",
    "tuner.cli.findings:boundaries",
    "tuner boundaries digits",
)
TRIALS = Command(
    "trials",
    "List the trials of a round",
    Group.READ,
    f"{_READING}:Trials",
    "tuner.cli.listings:trials",
    "tuner trials digits --top 5",
)
CONCLUSIONS = Command(
    "conclusions",
    "List conclusions and whether longer runs confirmed them",
    Group.READ,
    f"{_READING}:Conclusions",
    "tuner.cli.listings:conclusions",
    "tuner conclusions digits",
)
PLOT = Command(
    "plot",
    "Draw a plot, and write its numbers beside it",
    Group.READ,
    f"{_READING}:Plot",
    "tuner.cli.writing:plot",
    "tuner plot curves digits -o curves.png",
    "tuner.cli.writing:kinds_of_plots",
)
REPORT = Command(
    "report",
    "Write one HTML page: findings, plots, curves, trials",
    Group.READ,
    f"{_READING}:Report",
    "tuner.cli.writing:report",
    "tuner report digits",
)
DEMO = Command(
    "demo",
    "Write an example report from recorded trials",
    Group.READ,
    f"{_READING}:Demo",
    "tuner.cli.writing:demo",
    "tuner demo",
)
BEST = Command(
    "best",
    "Show the best configuration, and export its weights",
    Group.DECIDE,
    f"{_READING}:Best",
    "tuner.cli.best:best",
    "tuner best digits --export model.safetensors",
)
ADOPT = Command(
    "adopt",
    "Compare two configurations with fresh seeds: ADOPT, KEEP or TIE",
    Group.DECIDE,
    f"{_TRAINING}:Adopt",
    "tuner.cli.adopt:adopt",
    "tuner adopt studies/digits.py --candidate 2/0 --baseline 2/1",
)
ADOPTIONS = Command(
    "adoptions",
    "List which configurations were adopted, kept or tied",
    Group.DECIDE,
    f"{_READING}:Adoptions",
    "tuner.cli.listings:adoptions",
    "tuner adoptions digits",
)
SCORE_TEST = Command(
    "score-test",
    "Score the test split, once, for the final configuration",
    Group.DECIDE,
    f"{_TRAINING}:ScoreTest",
    "tuner.cli.score:score_test",
    "tuner score-test studies/digits.py",
)
IMPORT_OPTUNA = Command(
    "import optuna",
    "Import an Optuna study",
    Group.EXCHANGE,
    f"{_STORAGE}:ImportOptuna",
    "tuner.cli.importing:import_optuna",
    "tuner import optuna optuna.db",
)
IMPORT_TABLE = Command(
    "import table",
    "Import histories of runs from tables",
    Group.EXCHANGE,
    f"{_STORAGE}:ImportTable",
    "tuner.cli.importing:import_table",
    "tuner import table history.csv --objective val_loss --direction minimize",
)
EXPORT = Command(
    "export",
    "Write a study as an Optuna study or as tables",
    Group.EXCHANGE,
    f"{_READING}:Export",
    "tuner.cli.writing:export",
    "tuner export digits --to csv tables",
)
VERIFY = Command(
    "verify",
    "Check that every recorded file, digest and curve is there",
    Group.OPERATE,
    f"{_STORAGE}:Verify",
    "tuner.cli.upkeep:verify",
    "tuner verify digits",
)
REPLAY = Command(
    "replay",
    "Train a recorded trial again and compare it bit for bit",
    Group.OPERATE,
    f"{_TRAINING}:Replay",
    "tuner.cli.score:replay",
    "tuner replay studies/digits.py --trial 3",
)
BACKUP = Command(
    "backup",
    "Copy the records, also while others write",
    Group.OPERATE,
    f"{_STORAGE}:Backup",
    "tuner.cli.upkeep:backup",
    "tuner backup copy.sqlite",
)
ADOPT_STORAGE = Command(
    "adopt-storage",
    "Continue with a copy of a storage",
    Group.OPERATE,
    f"{_STORAGE}:AdoptStorage",
    "tuner.cli.upkeep:adopt_storage",
    "tuner adopt-storage --storage copy.sqlite",
)
COMPLETION = Command(
    "completion",
    "Complete commands, options and names in your shell",
    Group.OPERATE,
    f"{_STORAGE}:Completion",
    "tuner.cli.completion:completion",
    'eval "$(tuner completion bash)"',
)


def commands() -> Mapping[str, Command]:
    """Every command by its name, in the order of the help page; those of plugins after those of the package."""
    return {command.name: command for command in COMMANDS}


def grouped() -> Iterator[tuple[str, list[Command]]]:
    """The commands under the headings of the help page."""
    for group in Group:
        if mine := [command for command in COMMANDS if command.group is group]:
            yield group.value, mine
