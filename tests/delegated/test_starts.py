"""A stage that somebody else's loop trains: the weights of the earlier one reach it, or it is an error; and back."""

import hashlib
import re
import sys
from dataclasses import replace
from typing import ClassVar

import lightning.pytorch as pl
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import transformers
from support.lightning_nets import Net, workload_of
from support.loops import Plain, X, Y, setup_for, train_loop
from support.shell import tuner
from support.tiny import MemoryRecorder, StopAt, tiny_study
from torch import nn

import tuner as api
from tuner import Campaign, Command, Round, SearchSpace, TrainerWorkload, best_of, log_uniform, minimize
from tuner.delegated.looks import look_at, look_for_identity, trial_at
from tuner.design.identity import was_told
from tuner.errors import CorruptCheckpoint, DeclarationError, StorageError, WorkloadError
from tuner.execution.elsewhere import Elsewhere
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine
from tuner.records import State
from tuner.records.conclusions import Selected, StageStart
from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import weights_as_file
from tuner.training.inherited import StartWeights, file_of_weights

__all__ = ["tuner"]
STUDY = tiny_study(batch_size=0, optimizer=None)
TRIAL = planned_trials(STUDY)[0]


def start_with(*weights, parameters="*", fresh="", renamed=None):
    """What a stage starts from: these weights, the best first, in memory."""
    contents = tuple(weights_as_file(one) for one in weights)
    found = tuple(Selected(f"{place:064}", len(one), path="made.pt") for place, one in enumerate(contents))
    return StartWeights(StageStart(found, parameters, fresh, renamed or {}), contents=contents)


def network():
    return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 2))


def numbered(model, first=0.0):
    """Weights of a model that no seed gives: each tensor full of another number."""
    state = model.state_dict()
    return {name: torch.full_like(one, first + place) for place, (name, one) in enumerate(state.items())}


class Carrying(Plain):
    """Takes the weights as the page says, and remembers with what it began to train."""

    def keep(self, trial, model, optimizer):
        self.carried = trial.carry_into(model)
        trial.keep(model=model, optimizer=optimizer)
        self.began = {name: one.clone() for name, one in model.state_dict().items()}


def first_weights(workload, start, point=None):
    setup = replace(setup_for(workload, "unused", STUDY), inherited=start)
    look_at(setup, trial_at(point or dict(TRIAL.point)))
    return workload.began


def test_a_loop_begins_with_the_carried_weights_and_its_own_fresh_ones():
    given = numbered(network())
    workload = Carrying()
    start = start_with(given, parameters="0.*|1.*", fresh="1.bias")
    began = first_weights(workload, start)
    carried = {name for name in given if torch.equal(began[name], given[name])}
    assert carried == {
        "0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var", "1.num_batches_tracked",
    }  # fmt: skip
    assert workload.carried is True
    assert start.handed.fresh == ("1.bias", "4.weight", "4.bias")
    assert set(start.handed.left) == {"1.bias", "4.weight", "4.bias"}
    first_weights(workload, None)
    assert workload.carried is False


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (start_with({"0.weight": torch.zeros(12, 6)}), "0.bias is to be carried from made.pt .*, which has no such"),
        (start_with(numbered(network()), parameters="encoder.*"), "carries 'encoder.*', and no tensor of the model"),
        (start_with({"0.weight": torch.zeros(12, 7)}, parameters="0.weight"), r"shape \(12, 6\) here, \(12, 7\) there"),
    ],
)
def test_what_does_not_fit_is_the_same_error_as_with_our_trainer(start, message):
    with pytest.raises(WorkloadError, match=message):
        first_weights(Carrying(), start)


def test_a_loop_that_never_takes_the_weights_is_an_error_of_the_first_look_also_where_it_was_looked_at_without():
    setup = setup_for(Plain(), "unused", STUDY)
    look_for_identity(setup, ())
    with pytest.raises(WorkloadError, match=r"starts from made.pt .*, and Plain.train never takes .* trial.carry_into"):
        look_for_identity(replace(setup, inherited=start_with(numbered(network()))), ())


class KeepsFirst(Plain):
    def keep(self, trial, model, optimizer):
        trial.keep(model=model, optimizer=optimizer)
        trial.carry_into(model)


class CarriesLate(Carrying):
    def step(self, trial, step, model, optimizer, batch):
        trial.carry_into(model)


@pytest.mark.parametrize(
    ("workload", "message"), [(KeepsFirst(), "carry_into.* is called after trial.keep"), (CarriesLate(), "first step")]
)
def test_weights_are_carried_before_anything_is_kept(workload, message):
    with pytest.raises(WorkloadError, match=message):
        first_weights(workload, start_with(numbered(network())))


@pytest.mark.parametrize("question", [2, 9, 17])
def test_a_trial_that_is_resumed_goes_on_from_its_own_weights(question, tmp_path):
    found = []
    for questions in ([], [question]):
        recorder, folder = MemoryRecorder(), tmp_path / str(len(questions))
        for each in questions:
            setup = setup_for(Carrying(), folder, STUDY, stop=StopAt(each))
            train_loop(replace(setup, inherited=start_with(numbered(network(), 0.1))), recorder, TRIAL)
        setup = replace(setup_for(Carrying(), folder, STUDY), inherited=start_with(numbered(network(), 0.1)))
        assert train_loop(setup, recorder, TRIAL).state is State.COMPLETE
        found.append(recorder.measurements)
    assert found[0] == found[1]


class ByHand(Carrying):
    def keep(self, trial, model, optimizer):
        weights = trial.start_weights
        assert weights.keys() == safetensors.torch.load_file(trial.start_file).keys()
        with torch.no_grad():
            model[0].weight.copy_(weights["first.weight"])
        self.began = {name: one.clone() for name, one in model.state_dict().items()}
        trial.keep(model=model, optimizer=optimizer)


def test_tensors_have_the_names_that_the_campaign_says_and_only_those_that_are_carried():
    given = numbered(network(), 3.0)
    start = start_with(given, parameters="first.*", fresh="first.bias", renamed={"first": "0"})
    assert torch.equal(first_weights(ByHand(), start)["0.weight"], given["0.weight"])
    assert start.mapped({}).keys() == {"first.weight"}
    assert "carried: 1 (first.weight); left behind: 8" in start.words
    assert "fresh" not in start.words, "nobody knows the parameters of the loop's model"
    with pytest.raises(WorkloadError, match="no tensor of the weights has such a name; the nearest are 0"):
        start_with(given, parameters="head.*").mapped({})


@pytest.mark.parametrize(
    ("renamed", "here", "there"),
    [({"": "net"}, "0.weight", "net.0.weight"), ({"net": ""}, "net.0.weight", "0.weight"), ({"a": "b"}, "ab", "ab")],
)
def test_the_beginning_of_all_names_may_be_added_or_taken_away(renamed, here, there):
    weight = torch.arange(6.0).view(2, 3)
    assert start_with({there: weight}, renamed=renamed).mapped({}).keys() == {here}
    model = nn.Module()
    inside = model
    *path, last = here.split(".")
    for name in path:
        inside.add_module(name, nn.Module())
        inside = getattr(inside, name)
    inside.register_parameter(last, nn.Parameter(torch.zeros(2, 3)))
    start_with({there: weight}, renamed=renamed).into(model, {})
    assert torch.equal(model.state_dict()[here], weight)


def test_a_loop_starts_from_the_candidate_of_its_point():
    first, second = numbered(network()), numbered(network(), 5.0)
    workload = Carrying()
    for chosen, given in ((1, first), (2, second)):
        began = first_weights(workload, start_with(first, second), {**TRIAL.point, "start_from": chosen})
        assert torch.equal(began["4.weight"], given["4.weight"])


class Remembers(Net):
    began: ClassVar[dict] = {}

    def on_train_start(self):
        Remembers.began.update({name: one.clone() for name, one in self.state_dict().items()})


def test_lightning_begins_with_the_carried_weights():
    given = numbered(network(), 0.5)
    start = start_with(given, renamed={"net": ""})
    look_at(replace(setup_for(workload_of(Remembers), "unused", STUDY), inherited=start), trial_at(dict(TRIAL.point)))
    assert all(torch.equal(Remembers.began[f"net.{name}"], one) for name, one in given.items())


def test_the_trainer_of_hugging_face_begins_with_the_carried_weights():
    began = {}

    class Looks(transformers.TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, **_):
            began.update({name: one.clone() for name, one in model.state_dict().items()})

    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(6, 2)

        def forward(self, x, labels):
            logits = self.net(x)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    rows = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
    workload = TrainerWorkload(
        model_init=lambda point: Small(), args={"per_device_train_batch_size": 4, "remove_unused_columns": False},
        train_dataset=rows[:50], eval_dataset=rows[50:], callbacks=lambda: [Looks()],
        select_by=minimize("validation/loss"),
    )  # fmt: skip
    start = start_with({"net.weight": torch.full((2, 6), 0.25), "net.bias": torch.full((2,), 0.5)})
    look_at(replace(setup_for(workload, "unused", STUDY), inherited=start), trial_at(dict(TRIAL.point)))
    assert {name: one.unique().tolist() for name, one in began.items()} == {"net.weight": [0.25], "net.bias": [0.5]}


PROGRAM = """
import json, sys
from pathlib import Path

steps, due, start = int(sys.argv[1]), [int(one) for one in sys.argv[2].split(",")], sys.argv[3]
size = 0
if start:
    content = Path(start).read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    size = sum(one["shape"][0] for name, one in header.items() if name != "__metadata__")
for step in due:
    print(json.dumps({"step": step, "validation/loss": 1.0 / step + size + float(sys.argv[4])}), flush=True)
"""
FILE = """
import torch
from torch import nn
from tuner import *


class Loop(OwnLoop):
    select_by = minimize("validation/loss")

    def train(self, trial):
        model, teacher = nn.Linear(3, 1), nn.Linear(3, 1)
        trial.keep(model=model, teacher=teacher)
        for step in trial.steps():
            if trial.evaluates(step):
                trial.report({"validation/loss": trial.point["learning_rate"]})


class Files(Loop):
    def train(self, trial):
        trial.keep_files(lambda folder: (folder / "weights.bin").write_bytes(b"1"), lambda folder: None)
        for step in trial.steps():
            if trial.evaluates(step):
                trial.report({"validation/loss": trial.point["learning_rate"]})


class Later(Workload):
    batch_size = 4
    select_by = minimize("validation/loss")

    def data(self):
        x = torch.arange(60.0).view(20, 3)
        return Splits(training=(x,), validation=(x / 7,))

    def model(self, point):
        return nn.ModuleDict({"encoder": nn.Linear(3, 1)})

    def loss(self, model, batch, point):
        return model["encoder"](batch[0]).square().mean()

    def metrics(self, model, batch):
        return {"loss": model["encoder"](batch[0]).square().mean(1)}


def rounds(*more):
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-3))
    return [Round("Which rate?", trials=2, max_train_steps=8, space=space), *more]


PROGRAM = ["python", "program.py", "{max_train_steps}", "{evaluation_steps}", "{start}", "{learning_rate}"]
looped = Campaign(Loop(), name="looped", evaluations=2, rounds=rounds())
files = Campaign(Files(), name="files", evaluations=2, rounds=rounds())
later = Campaign(
    Later(), name="later", evaluations=2, rounds=rounds(), start_from=best_of(looped, renamed={"encoder": "teacher"})
)
command = Campaign(
    Command(PROGRAM, select_by=minimize("validation/loss")), name="command", evaluations=2,
    start_from=best_of(looped, "model.*"),
    rounds=rounds(Round("scratch", trials=2, max_train_steps=8, space=rounds()[0].space, start="scratch")),
)
after_files = Campaign(Later(), name="after-files", evaluations=2, rounds=rounds(), start_from=best_of(files))
bare = Campaign(
    Command([*PROGRAM[:4], "", "{learning_rate}"], select_by=minimize("validation/loss")), name="bare", evaluations=2,
    rounds=rounds(),
)
after_bare = Campaign(Later(), name="after-bare", evaluations=2, rounds=rounds(), start_from=best_of(bare))
told = Campaign(OwnLoop(select_by=minimize("validation/loss")), name="told", rounds=rounds(),
                start_from=best_of(looped, "teacher.*"))
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    (tmp_path / "mixed.py").write_text(FILE)
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_a_loop_keeps_is_carried_by_the_names_that_it_was_kept_under(tuner, file, caplog):
    assert tuner("launch", "mixed.py:looped").code == 0
    ran = tuner("launch", "mixed.py:later")
    assert ran.code == 0, ran.err
    assert "carried: 2 (encoder.weight, encoder.bias); fresh: none; left behind: 2 (model." in caplog.text


def test_a_command_gets_the_file_of_the_carried_weights_and_none_from_scratch(tuner, file):
    assert tuner("launch", "mixed.py:looped").code == 0
    for number in (1, 2):
        ran = tuner("launch", "mixed.py:command", "--round", number)
        assert ran.code == 0, ran.err
    records = api.load("command", str(file / "runs/tuner.sqlite"))
    best = [records.frames(round=number).trials["best_value"].min() for number in (1, 2)]
    assert int(best[0]) == 2, "the first dimensions of model.weight [1, 3] and model.bias [1], as the program read them"
    assert int(best[1]) == 0


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (
            "files",
            r"\(trial \d\) holds files .*\(weights.bin\), and no weights .* tuner best files --export FOLDER",
        ),
        ("bare", r"selects \(trial \d\) holds no weights: its program announced no checkpoint.*weights_from"),
    ],
)
def test_what_is_no_weights_is_one_error_with_the_way_out(tuner, file, before, message):
    assert tuner("launch", f"mixed.py:{before}").code == 0
    ran = tuner("launch", f"mixed.py:after-{before}")
    assert ran.code == 2
    assert re.search(message, " ".join(ran.err.split())), ran.err


def test_a_command_that_is_not_given_the_weights_is_refused_at_its_declaration():
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-3))
    rounds = [Round("Which rate?", trials=2, max_train_steps=8, space=space)]
    command = Command("train {max_train_steps}", select_by=minimize("validation/loss"))
    with pytest.raises(DeclarationError, match=r"has no \{start\}, .* --init \{start\}"):
        Campaign(command, rounds=rounds, start_from=best_of("before"))
    Campaign(command, rounds=rounds)


def test_a_hyperparameter_called_start_keeps_its_placeholder(tmp_path):
    (tmp_path / "program.py").write_text(
        "import sys; assert sys.argv[3] == '0.5'\n" + PROGRAM.replace("if start:", "if 0:")
    )
    words = [sys.executable, str(tmp_path / "program.py"), "{max_train_steps}", "{evaluation_steps}", "{start}", "0"]
    setup = setup_for(Command(words, select_by=minimize("validation/loss")), "unused", STUDY)
    look_at(setup, trial_at({**TRIAL.point, "start": 0.5}))


def test_a_script_that_asks_takes_the_weights_or_may_not_tell(tuner, file):
    assert tuner("launch", "mixed.py:looped").code == 0
    with api.asking("mixed.py:told") as study:
        trial = study.ask()
        curve = {"validation/loss": dict.fromkeys(trial.evaluation_steps, 1.0)}
        with pytest.raises(WorkloadError, match="nothing has read the weights that the campaign starts from"):
            study.tell(trial, curve)
        weights = trial.start_weights
        assert weights.keys() == {"teacher.weight", "teacher.bias"}
        written = safetensors.torch.load_file(trial.write_start(file))
        assert all(torch.equal(written[name], one) for name, one in weights.items())
        model = nn.ModuleDict({"teacher": nn.Linear(3, 1)})
        assert trial.carry_into(model)
        assert torch.equal(model["teacher"].weight, weights["teacher.weight"])
        assert study.tell(trial, curve) is State.COMPLETE
    with api.asking("mixed.py:told") as study:
        for trial in study:
            trial.carry_into(nn.ModuleDict({"teacher": nn.Linear(3, 1)}))
            study.tell(trial, curve)
    (file / "mixed.py").write_text(
        FILE.replace('"told", rounds=rounds(),', '"after-told", rounds=rounds(),').replace(
            'best_of(looped, "teacher.*"))', 'best_of("told"))'
        )
    )
    with pytest.raises(StorageError, match="told"), api.asking("mixed.py:after-told"):
        pass


def saved(value, folder):
    torch.save(value, folder / "made.pt")
    return (folder / "made.pt").read_bytes()


WEIGHTS = {"net.weight": torch.ones(2, 3)}


@pytest.mark.parametrize(
    "value",
    [WEIGHTS, {"state_dict": WEIGHTS, "epoch": 3, "optimizer_states": [{"state": {0: torch.zeros(9)}}]},
     {"model_state_dict": WEIGHTS, "loss": torch.zeros(1)}, {"model": WEIGHTS}],
)  # fmt: skip
def test_downloaded_files_have_their_weights_by_themselves_or_under_the_usual_names(value, tmp_path):
    content = file_of_weights(tmp_path / "made.pt", saved(value, tmp_path))
    found = safetensors.torch.load(content)
    assert found.keys() == WEIGHTS.keys()
    assert torch.equal(found["net.weight"], WEIGHTS["net.weight"])


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_of_lightning_is_a_file_of_weights(tmp_path):
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer, module = pl.Trainer(max_steps=1, accelerator="cpu", limit_val_batches=0, **quiet), Net()
    trainer.fit(module)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    found = safetensors.torch.load(file_of_weights(tmp_path / "last.ckpt", (tmp_path / "last.ckpt").read_bytes()))
    assert all(torch.equal(found[name], one) for name, one in module.state_dict().items())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([torch.zeros(1)], "it is a list, and no dict"),
        ({"generator": {"x": torch.zeros(1)}, "step": 3}, "its keys are generator, step"),
        (nn.Linear(2, 2), r"without code. What holds more"),
        ({}, "its keys are none"),
    ],
)
def test_files_that_hold_no_weights_are_one_error_with_the_way_out(value, message, tmp_path):
    with pytest.raises(CorruptCheckpoint, match=message):
        file_of_weights(tmp_path / "made.pt", saved(value, tmp_path))


def test_the_weights_are_part_of_the_identity_of_a_loop_and_of_what_a_script_asks_for(tmp_path):
    machine = Machine(tmp_path)
    for loaded in (LoadedWorkload(Carrying(), machine), Elsewhere(Plain(), machine, None, True)):
        plain, of_starts = loaded.fingerprint(STUDY), []
        for first in (0.0, 1.0):
            content = weights_as_file(numbered(network(), first))
            digest = hashlib.sha256(content).hexdigest()
            start = StageStart((Selected(digest, len(content), path="made.pt"),), "*", "", {})
            loaded.inherited = StartWeights(start, contents=(content,))
            of_starts.append(loaded.fingerprint(STUDY))
        scratch = replace(STUDY, start="scratch")
        assert len({plain, *of_starts}) == 3
        assert loaded.fingerprint(scratch) == plain
    assert was_told(Elsewhere(Plain(), machine, None, True).identity_of(STUDY).as_json())
    assert was_told(loaded.identity_of(STUDY).as_json())
