"""A plugin adds optimizers, schedules, questions, plots, sections and commands without a change in the package."""

import csv
import json
import re
import sys
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from support.fusible import Mlp, runs_of
from support.shell import tuner as tuner  # a fixture
from support.study_files import write_study

from tuner import Campaign, Round, SearchSpace, branches, log_uniform, registry, uniform
from tuner.design.optimizers import OPTIMIZERS, OptimizerSetting, OptimizerSpec, one_group
from tuner.design.study_file import load_campaign
from tuner.errors import DeclarationError, InputError, WorkloadError
from tuner.fused.making import exact_group
from tuner.optimizers.sgd import SGD
from tuner.registry import Registry, Source, register
from tuner.sources.reached import Reached
from tuner.training.checkpoints import canonical_digest
from tuner.training.optimizers import make_optimizer

PLUGIN = '''
"""Sign descent: every weight moves by the learning rate against the sign of its gradient."""

from dataclasses import dataclass

import pandas as pd

import tuner
from tuner.analysis.finding import Question, Verdict
from tuner.budget.schedules import Piece, ScheduleFamily, ScheduleKind, Shape
from tuner.cli.commands import CliCommand, CommandGroup
from tuner.design.optimizers import OptimizerSetting, OptimizerSpec, torch_groups
from tuner.plots.plot import StudyPlot
from tuner.report.section import Blocks, Part, Section


def build(groups, values, rate, fused):
    import torch

    class SignDescent(torch.optim.Optimizer):
        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for parameter in (one for one in group["params"] if one.grad is not None):
                    parameter.mul_(1.0 - group["lr"] * group["shrink"]).sub_(parameter.grad.sign(), alpha=group["lr"])

    return SignDescent(torch_groups(groups, rate), {"lr": rate, "shrink": values.get("shrink", 0.0)})


SIGN = OptimizerSpec("sign", (OptimizerSetting("shrink"),), build)

STAIRS = Shape(
    "stairs",
    lambda piece, step: piece.start * 0.5 ** int(4 * step / piece.steps),
    role="decay",
    words="four stairs over {over}",
    alone="rescale",
)
FAMILY = ScheduleKind("stairs", lambda declared, steps, warmup: [Piece("stairs", steps - warmup)])


def stairs():
    return ScheduleFamily("stairs")


def how_many(frames):
    number = len(frames.complete)
    verdict = "several" if number > 1 else "one"
    table = pd.DataFrame({"complete": [number]})
    return SEVERAL.answer(frames.study.name, verdict, f"{number} trials are complete.", table)


SEVERAL = Question(
    name="several_trials",
    sentence="Are there several trials?",
    order=500,
    verdicts=(Verdict("several", "fine"), Verdict("one", "act", "Train another trial.")),
    ask=how_many,
    plot="finals",
)


def draw(frames):
    from tuner.plots import theme

    table = frames.complete[["trial", "last_value"]]
    figure = theme.new_figure(4.0, 3.0, "Final values")
    figure.add_subplot().plot(table["trial"], table["last_value"])
    return figure, table


FINALS = StudyPlot(
    name="finals", title="Final values", caption="The last value of each trial.", absent="None.", place=900, draw=draw
)


@dataclass(frozen=True)
class Greeting:
    """Print a greeting."""

    name: str


def greet(options):
    print(f"hello {options.name}")


GREET = CliCommand("greet", "Print a greeting", CommandGroup.OPERATE, "sign_plugin:Greeting", "sign_plugin:greet")
NOTES = Section(
    name="notes", place=950, make=lambda material: [Part("notes", Blocks(leads=("Trained by the sign.",)), "Notes")]
)
tuner.register(SIGN, STAIRS, FAMILY, SEVERAL, FINALS, GREET, NOTES)
'''
STUDY = [
    ("from tuner import *", "from tuner import *\nfrom sign_plugin import stairs"),
    ("learning_rate=log_uniform(", "shrink=uniform(0.0, 0.1), learning_rate=log_uniform("),
]
DECLARED = "optimizer='sign', schedule=stairs(), warmup_steps=5,"


@pytest.fixture
def no_others(monkeypatch):
    """What a test registers is gone after it."""
    for module in ("tuner.cli.commands", "tuner.analysis.finding", "tuner.plots.catalog", "tuner.report.section"):
        import_module(module)  # a registry that is made later would keep what is registered here
    for one in registry._REGISTRIES:
        list(one)
        monkeypatch.setattr(one, "_records", dict(one._records))
    monkeypatch.setattr(registry, "_WAITING", [])
    monkeypatch.setattr(registry, "_loaded", set(registry._loaded))


@pytest.fixture
def site(tmp_path, monkeypatch, no_others):
    """A folder on the path that has the installed plugin."""
    folder = tmp_path / "site"
    (folder / "sign_plugin-1.0.dist-info").mkdir(parents=True)
    (folder / "sign_plugin.py").write_text(PLUGIN)
    (folder / "sign_plugin-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: sign-plugin\nVersion: 1.0\n"
    )
    (folder / "sign_plugin-1.0.dist-info" / "entry_points.txt").write_text("[tuner.plugins]\nsign = sign_plugin\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(registry, "_loaded", set())
    yield folder
    sys.modules.pop("sign_plugin", None)


def test_a_plugin_adds_an_optimizer_a_schedule_a_question_a_plot_a_section_and_a_command(site, tuner, tmp_path):
    study = write_study(tmp_path, trials=3, steps=40, more=DECLARED, replace=STUDY)
    trained = tuner("launch", study, "--round", "1")
    assert trained.code == 0, trained.err

    checked = json.loads(tuner("check", "tiny", "--format", "json").out)
    (found,) = [one for one in checked["findings"] if one["question"] == "several_trials"]
    assert (found["verdict"], found["summary"]) == ("several", "3 trials are complete.")

    assert tuner("plot", "finals", "tiny", "-o", "finals.png").code == 0
    with (tmp_path / "finals.csv").open() as table:
        assert [row["trial"] for row in csv.DictReader(table)] == ["0", "1", "2"]

    assert re.search(r"greet +Print a greeting", tuner("--help").out)
    assert tuner("greet", "reader").out == "hello reader\n"
    assert re.search(r"finals +Final values", tuner("plot", "--help").out)

    assert tuner("report", "tiny", "-o", "page.html").code in (0, 3)
    page = (tmp_path / "page.html").read_text()
    assert "warmup over 5 steps, four stairs over 35 steps" in page
    assert "Are there several trials?" in page
    assert "Trained by the sign." in page

    together = tuner("launch", write_study(tmp_path, trials=5, steps=40, more=DECLARED, replace=STUDY), "--fuse", "2")
    assert together.code == 0, "each trial's own optimizer makes its steps"


def test_other_code_of_a_plugin_is_another_study_though_the_study_file_only_names_its_optimizer(site, tuner, tmp_path):
    study = write_study(tmp_path, trials=1, steps=10, more="optimizer='sign',")
    assert tuner("launch", study, "--round", "1").code == 0
    (site / "sign_plugin.py").write_text(PLUGIN.replace("parameter.grad.sign()", "(2 * parameter.grad.sign())"))
    sys.modules.pop("sign_plugin")
    registry._loaded.clear()
    study = write_study(tmp_path, trials=2, steps=10, more="optimizer='sign',")
    refused = tuner("launch", study, "--round", "1")
    assert refused.code == 2
    assert "sign_plugin.py: function build changed" in refused.err


def test_records_of_a_plugin_that_is_gone_are_answered_with_its_name(site, tuner, tmp_path, monkeypatch):
    study = write_study(tmp_path, trials=1, steps=10, more=DECLARED, replace=STUDY)
    assert tuner("launch", study, "--round", "1").code == 0
    monkeypatch.setattr(registry, "_loaded", {registry.PLUGINS})
    for one in registry._REGISTRIES:
        monkeypatch.setattr(one, "_records", {record.name: (record, one.source_of(record.name)) for record in one.own})
    gone = tuner("check", "tiny")
    assert gone.code == 2
    assert "got 'stairs'; install the plugin that adds it, or name the study file that registers it" in gone.err


def test_a_plugin_that_cannot_be_imported_is_named_with_its_package(site, tuner):
    (site / "sign_plugin.py").write_text("import no_such_module")
    done = tuner("--help")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "the plugin 'sign' (sign_plugin, of sign-plugin 1.0) cannot be loaded: ModuleNotFoundError" in done.err
    assert done.err.endswith("correct its package, or uninstall it\n")


# --- What a study file registers ---------------------------------------------------------------------------------

OWN = """
def _build(groups, values, rate, fused):
    return torch.optim.Adagrad(groups, lr=rate, eps=values.get("smoothing", 1e-10))


register(OptimizerSpec("smoothed", (OptimizerSetting("smoothing"),), _build, slots=lambda optimizer: ("sum",)))
"""
REGISTERS = [
    ("from tuner import *", "from tuner import *\nfrom tuner.design.optimizers import OptimizerSetting, OptimizerSpec"),
    ("\n\nclass Tiny(Workload):", f"\n{OWN}\n\nclass Tiny(Workload):"),
]


def smoothed(name="smoothed", settings=()):
    def build(groups, values, rate, fused):
        return torch.optim.Adagrad(groups, lr=rate)

    return OptimizerSpec(name, settings, build, slots=lambda optimizer: ("sum",))


def test_a_study_file_registers_an_optimizer_each_time_it_is_loaded(no_others, tmp_path):
    path = write_study(tmp_path, more="optimizer='smoothed',", replace=REGISTERS)
    for _ in range(2):
        assert load_campaign(path)[1].optimizer == "smoothed"
    other = write_study(tmp_path, "other.py", more="optimizer='smoothed',", replace=REGISTERS)
    with pytest.raises(DeclarationError, match=r"'smoothed' is registered twice: by .*tiny\.py.* and by .*other\.py"):
        load_campaign(other)


def test_the_code_of_an_optimizer_in_a_study_file_is_part_of_the_study(no_others, tuner, tmp_path):
    assert (
        tuner("launch", write_study(tmp_path, trials=1, steps=10, more="optimizer='smoothed',", replace=REGISTERS)).code
        == 0
    )
    changed = [*REGISTERS, ("lr=rate, eps", "lr=2 * rate, eps")]
    refused = tuner("launch", write_study(tmp_path, trials=2, steps=10, more="optimizer='smoothed',", replace=changed))
    assert (refused.code, "the study file: function _build changed" in refused.err) == (2, True)


def test_every_parameter_group_of_an_optimizer_has_the_rate_of_the_step_times_its_factor(no_others):
    factors = (1.0, 0.5, 0.0, 1.0, 1.0, 1.0)

    def build(groups, values, rate, fused):
        groups = [
            {"params": [each], "lr_factor": factor} for each, factor in zip(groups[0]["params"], factors, strict=True)
        ]
        return torch.optim.SGD(groups, lr=rate)

    register(replace(smoothed("grouped"), build=build))
    register(replace(smoothed("plain"), build=lambda groups, values, rate, fused: torch.optim.SGD(groups, rate)))
    (grouped,), (plain,) = runs_of(Mlp(), 1, optimizer="grouped"), runs_of(Mlp(), 1, optimizer="plain")
    before = [each.detach().clone() for each in plain.parameters]
    grouped.advance(1)
    plain.advance(1)
    for old, one, other, factor in zip(before, grouped.parameters, plain.parameters, factors, strict=True):
        torch.testing.assert_close(one - old, factor * (other - old))


def test_what_is_no_torch_optimizer_is_refused_with_the_module_of_its_record(no_others):
    register(replace(smoothed("none"), build=lambda *arguments: None))
    with pytest.raises(
        WorkloadError, match=r"'none' of tests\.test_plugins .* must build a torch.optim.Optimizer, got None"
    ):
        make_optimizer("none", one_group([torch.nn.Parameter(torch.zeros(2))]), {}, 0.1)


def test_an_update_of_stacked_trials_has_the_bits_of_each_trial_alone(no_others):
    def build(groups, values, rate, fused):
        return torch.optim.Adagrad(groups, lr=rate, foreach=False)

    def row_update(rows, trial):
        sums = rows.states["sum"][trial]

        def update(rate):
            for value, gradient, total in zip(rows.values[trial], rows.gradients[trial], sums, strict=True):
                total.addcmul_(gradient, gradient, value=1)
                value.addcdiv_(gradient, total.sqrt().add_(1e-10), value=-rate)

        return update

    register(replace(smoothed("stacked"), build=build, counts_steps=True, row_update=row_update))
    together, alone = (runs_of(Mlp(), 3, optimizer="stacked") for _ in range(2))
    exact_group(together).advance(5)
    for run, other in zip(together, alone, strict=True):
        other.advance(5)
        assert canonical_digest(run.state()) == canonical_digest(other.state())


# --- What an installed plugin does not change --------------------------------------------------------------------


def test_a_plugins_setting_has_its_family_in_the_branch_of_its_optimizer_and_nowhere_else(no_others):
    register(smoothed(settings=(OptimizerSetting("smoothing"), OptimizerSetting("weight_decay", "regularization"))))
    inside = {"learning_rate": log_uniform(1e-3, 1.0), "smoothing": uniform(0.0, 1.0)}
    space = SearchSpace(optimizer=branches(smoothed=inside, sgd={"learning_rate": log_uniform(1e-3, 1.0)}))
    assert space["smoothed.smoothing"].family == "optimizer"
    assert SearchSpace(smoothing=uniform(0.0, 1.0))["smoothing"].family is None


def test_a_workload_may_have_a_hyperparameter_with_the_name_of_a_plugins_setting(no_others):
    register(smoothed(settings=(OptimizerSetting("smoothing"),)))
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1.0), smoothing=uniform(0.0, 1.0))
    Campaign(Mlp(), [Round("a test", trials=2, space=space)], optimizer="adamw")
    with pytest.raises(DeclarationError, match="momentum would change nothing: it is read by muon, rmsprop, sgd only"):
        Campaign(
            Mlp(), [Round("a test", trials=2, space=SearchSpace(momentum=uniform(0.0, 0.9)))], optimizer="smoothed"
        )


# --- Registries --------------------------------------------------------------------------------------------------


def test_a_name_of_the_package_cannot_be_taken(no_others):
    with pytest.raises(
        DeclarationError, match=r"'sgd' is registered twice: by tuner\.optimizers\.sgd .* by tests\.test_plugins"
    ):
        register(smoothed("sgd"))
    assert OPTIMIZERS.get("sgd") is SGD


def test_an_unknown_name_is_answered_with_the_known_ones(no_others):
    register(smoothed())
    names = (
        "adafactor, adagrad, adam, adamw, adamw_8bit, lion, muon, nadam, radam, rmsprop, schedule_free_adamw, sgd, "
        "smoothed"
    )
    with pytest.raises(DeclarationError, match=f"optimizer is one of {names}, got 'shampoo'$"):
        OPTIMIZERS.get("shampoo")
    with pytest.raises(DeclarationError, match=r"got 'RMSPropo'; did you mean 'rmsprop'\?"):
        OPTIMIZERS.get("RMSPropo")
    with pytest.raises(DeclarationError, match="got None"):
        OPTIMIZERS.get(None)


def test_a_record_waits_for_the_registry_of_its_kind(no_others, monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRIES", [])
    register(smoothed())
    assert Registry("optimizer", OptimizerSpec).get("smoothed").name == "smoothed"


@pytest.mark.parametrize("thing", [42, "smoothed", OptimizerSpec, Source("a")])
def test_only_records_with_a_name_are_registered(no_others, thing):
    with pytest.raises(InputError, match="register takes records with a name"):
        register(thing)


FILES = {"lion/__init__.py", "lion/maths.py", "lion/optim.py", "lion/other.py"}


@pytest.mark.parametrize(
    ("record", "known"),
    [
        ("".join(f"{file},,\n" for file in sorted(FILES)), FILES),
        (None, FILES - {"lion/other.py"}),  # a folder on the path: what the module imports
    ],
)
def test_the_code_of_an_installed_plugin_is_every_file_of_its_package(tmp_path, monkeypatch, record, known):
    monkeypatch.syspath_prepend(tmp_path)
    package, info = tmp_path / "lion", tmp_path / "lion-1.0.dist-info"
    package.mkdir()
    info.mkdir()
    for name in ("__init__.py", "other.py"):
        (package / name).touch()
    (package / "maths.py").write_text("BETA = 0.9\n")
    (package / "optim.py").write_text("from lion import maths\n\n\ndef build(): ...\n")
    (info / "METADATA").write_text("Name: lion\nVersion: 1.0\n")
    if record is not None:
        (info / "RECORD").write_text(record)
    reached = Reached(None)
    reached.add_plugin("lion.optim", package / "optim.py")
    assert set(reached.code) == known
    assert "function build" in reached.code["lion/optim.py"]
