"""The table of commands. A command's modules are loaded only when it is called, or asked for help or completion.

A plugin adds a command by `tuner.register(CliCommand(...))`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tuner.registry import Registry


class CommandGroup(StrEnum):
    """The headings of the help page, in their order."""

    TRAIN = "Train"
    READ = "Read"
    DECIDE = "Decide"
    EXCHANGE = "Exchange"
    OPERATE = "Operate"


@dataclass(frozen=True, slots=True)
class CliCommand:
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
    group: CommandGroup
    options: str
    run: str
    example: str = ""
    choices: str = ""


_TRAINING, _READING, _STORAGE = (f"tuner.cli.{name}_options" for name in ("training", "reading", "storage"))

COMMANDS: Registry[CliCommand] = Registry("command", CliCommand, package=__name__)

RUN = CliCommand(
    "run",
    "Run the whole playbook: sweep, rounds, findings, report",
    CommandGroup.TRAIN,
    f"{_TRAINING}:RunOptions",
    "tuner.cli.run:run",
    "tuner run studies/digits.py --dry-run",
)
PLAN = CliCommand(
    "plan",
    "Show rounds, trials, steps and cost before anything is trained",
    CommandGroup.TRAIN,
    f"{_TRAINING}:PlanOptions",
    "tuner.cli.plan:plan",
    "tuner plan studies/digits.py --total-steps 100000",
)
SWEEP = CliCommand(
    "sweep",
    "Sweep constant learning rates and find the step budget",
    CommandGroup.TRAIN,
    f"{_TRAINING}:SweepOptions",
    "tuner.cli.budgets:sweep",
    "tuner sweep studies/digits.py",
)
LAUNCH = CliCommand(
    "launch",
    "Train one round, or continue with it",
    CommandGroup.TRAIN,
    f"{_TRAINING}:LaunchOptions",
    "tuner.cli.launch:launch",
    "tuner launch studies/digits.py --round 1",
)
EXPLOIT = CliCommand(
    "exploit",
    "Run Bayesian optimization in a round's search space",
    CommandGroup.TRAIN,
    f"{_TRAINING}:ExploitOptions",
    "tuner.cli.final_model:exploit",
    "tuner exploit studies/digits.py --trials 32",
)
BUDGET_CURVE = CliCommand(
    "budget-curve",
    "Train one configuration for several lengths, and show the gain",
    CommandGroup.TRAIN,
    f"{_TRAINING}:BudgetCurveOptions",
    "tuner.cli.budgets:budget_curve",
    "tuner budget-curve studies/digits.py --lengths 200,400,800",
)
STABILITY = CliCommand(
    "stability",
    "Does instability limit the learning rate, and which warmup helps?",
    CommandGroup.TRAIN,
    f"{_TRAINING}:StabilityOptions",
    "tuner.cli.stability:stability",
    "tuner stability studies/digits.py --yes",
)
WORKER = CliCommand(
    "worker",
    "Help with launches, on this or another machine",
    CommandGroup.TRAIN,
    f"{_TRAINING}:WorkerOptions",
    "tuner.cli.worker:worker",
    "tuner worker studies/digits.py",
)
STATUS = CliCommand(
    "status",
    "Show the studies in the storage and how far they are",
    CommandGroup.READ,
    f"{_READING}:StatusOptions",
    "tuner.cli.upkeep:status",
    "tuner status",
)
CHECK = CliCommand(
    "check",
    "Answer every question of the checklist: verdict, evidence, action",
    CommandGroup.READ,
    f"{_READING}:CheckOptions",
    "tuner.cli.findings:check",
    "tuner check digits",
)
BEST_STEPS = CliCommand(
    "best-steps",
    "Was the step budget right?",
    CommandGroup.READ,
    f"{_READING}:BestStepsOptions",
    "tuner.cli.findings:best_steps",
    "tuner best-steps digits",
)
BOUNDARIES = CliCommand(
    "boundaries",
    "Was the search space wide enough?",
    CommandGroup.READ,
    f"{_READING}:BoundariesOptions",
    "tuner.cli.findings:boundaries",
    "tuner boundaries digits",
)
TRIALS = CliCommand(
    "trials",
    "List the trials of a round",
    CommandGroup.READ,
    f"{_READING}:TrialsOptions",
    "tuner.cli.findings:trials",
    "tuner trials digits --top 5",
)
CONCLUSIONS = CliCommand(
    "conclusions",
    "List conclusions and whether longer runs confirmed them",
    CommandGroup.READ,
    f"{_READING}:ConclusionsOptions",
    "tuner.cli.findings:conclusions",
    "tuner conclusions digits",
)
PLOT = CliCommand(
    "plot",
    "Draw a plot, and write its numbers beside it",
    CommandGroup.READ,
    f"{_READING}:PlotOptions",
    "tuner.cli.writing:plot",
    "tuner plot curves digits -o curves.png",
    "tuner.cli.writing:kinds_of_plots",
)
REPORT = CliCommand(
    "report",
    "Write one HTML page: findings, plots, curves, trials",
    CommandGroup.READ,
    f"{_READING}:ReportOptions",
    "tuner.cli.writing:report",
    "tuner report digits",
)
DEMO = CliCommand(
    "demo",
    "Write an example report from recorded trials",
    CommandGroup.READ,
    f"{_READING}:DemoOptions",
    "tuner.cli.writing:demo",
    "tuner demo",
)
BEST = CliCommand(
    "best",
    "Show the best configuration, and export its weights",
    CommandGroup.DECIDE,
    f"{_READING}:BestOptions",
    "tuner.cli.best:best",
    "tuner best digits --export model.safetensors",
)
ADOPT = CliCommand(
    "adopt",
    "Compare two configurations with fresh seeds: ADOPT, KEEP or TIE",
    CommandGroup.DECIDE,
    f"{_TRAINING}:AdoptOptions",
    "tuner.cli.final_model:adopt",
    "tuner adopt studies/digits.py --candidate 2/0 --baseline 2/1",
)
ADOPTIONS = CliCommand(
    "adoptions",
    "List which configurations were adopted, kept or tied",
    CommandGroup.DECIDE,
    f"{_READING}:AdoptionsOptions",
    "tuner.cli.findings:adoptions",
    "tuner adoptions digits",
)
SCORE_TEST = CliCommand(
    "score-test",
    "Score the test split, once, for the final configuration",
    CommandGroup.DECIDE,
    f"{_TRAINING}:ScoreTestOptions",
    "tuner.cli.final_model:score_test",
    "tuner score-test studies/digits.py",
)
IMPORT_OPTUNA = CliCommand(
    "import optuna",
    "Import an Optuna study",
    CommandGroup.EXCHANGE,
    f"{_STORAGE}:ImportOptunaOptions",
    "tuner.cli.importing:import_optuna",
    "tuner import optuna optuna.db",
)
IMPORT_TABLE = CliCommand(
    "import table",
    "Import histories of runs from tables",
    CommandGroup.EXCHANGE,
    f"{_STORAGE}:ImportTableOptions",
    "tuner.cli.importing:import_table",
    "tuner import table history.csv --objective val_loss --direction minimize",
)
EXPORT = CliCommand(
    "export",
    "Write a study as an Optuna study or as tables",
    CommandGroup.EXCHANGE,
    f"{_READING}:ExportOptions",
    "tuner.cli.writing:export",
    "tuner export digits --to csv tables",
)
VERIFY = CliCommand(
    "verify",
    "Check that every recorded file, digest and curve is there",
    CommandGroup.OPERATE,
    f"{_STORAGE}:VerifyOptions",
    "tuner.cli.upkeep:verify",
    "tuner verify digits",
)
REPLAY = CliCommand(
    "replay",
    "Train a recorded trial again and compare it bit for bit",
    CommandGroup.OPERATE,
    f"{_TRAINING}:ReplayOptions",
    "tuner.cli.final_model:replay",
    "tuner replay studies/digits.py --trial 3",
)
BACKUP = CliCommand(
    "backup",
    "Copy the records, also while others write",
    CommandGroup.OPERATE,
    f"{_STORAGE}:BackupOptions",
    "tuner.cli.upkeep:backup",
    "tuner backup copy.sqlite",
)
ADOPT_STORAGE = CliCommand(
    "adopt-storage",
    "Continue with a copy of a storage",
    CommandGroup.OPERATE,
    f"{_STORAGE}:AdoptStorageOptions",
    "tuner.cli.upkeep:adopt_storage",
    "tuner adopt-storage --storage copy.sqlite",
)
COMPLETION = CliCommand(
    "completion",
    "Complete commands, options and names in your shell",
    CommandGroup.OPERATE,
    f"{_STORAGE}:CompletionOptions",
    "tuner.cli.completion:completion",
    'eval "$(tuner completion bash)"',
)


def commands() -> Mapping[str, CliCommand]:
    """Every command by its name, in the order of the help page; those of plugins after those of the package."""
    return {command.name: command for command in COMMANDS}


def grouped() -> Iterator[tuple[str, list[CliCommand]]]:
    """The commands under the headings of the help page."""
    for group in CommandGroup:
        if mine := [command for command in COMMANDS if command.group is group]:
            yield group.value, mine
