"""The recipes of docs/how-to/data.md, run as they stand there: the same bits at every step, and by hand."""

import gc
import importlib
import io
import itertools
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.fusing import meaning, trained_alone, trained_together
from support.needs import require
from support.tiny import CPU, Tiny, setting_for, tiny_study
from torch import nn

import tuner
from tuner.errors import NotFusible
from tuner.fused.group import Group
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.evaluation import evaluate
from tuner.training.preflight import check_workload
from tuner.training.setup import Data
from tuner.training.trial_run import TrialRun

PAGE = (Path(__file__).parents[2] / "docs/how-to/data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
PARTS = {"torch_geometric": "torch_geometric", "datasets": "datasets", "webdataset": "webdataset"}
STUDY = tiny_study(augment=False)
TRIALS = planned_trials(STUDY)


def recipes(*parts):
    """What the page defines, without the blocks that import a package other than these."""
    require(*parts)
    known: dict = {}
    for block in BLOCKS:
        needed = [name for name in PARTS if re.search(rf"^(from|import) {name}\b", block, re.MULTILINE)]
        if set(needed) <= set(parts):
            exec(block, known)
    return known


def study_of(kind, features, model=None):
    """A whole workload of a recipe: `features` makes numbers [examples, 2] and labels [examples] of a batch."""

    class Whole(kind, Tiny):  # type: ignore[misc, valid-type]
        batch_size = 8
        training_evaluation_examples = kind.__dict__.get(
            "training_evaluation_examples", Tiny.training_evaluation_examples
        )
        evaluation_batch_size = 16

        def model(self, point):
            return model() if model else nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))

        def loss(self, model, batch, point):
            return F.cross_entropy(*self._read(model, batch))

        def metrics(self, model, batch):
            logits, labels = self._read(model, batch)
            return {
                "loss": F.cross_entropy(logits, labels, reduction="none"),
                "error_rate": logits.argmax(-1) != labels,
            }

        def _read(self, model, batch):
            numbers, labels = features(batch)
            return model(numbers), labels

    return Whole()


def resumed_at_every_step(workload, folder, steps=13):
    """Each result of a trial that was stopped at a step and went on in another process, so to say."""

    def results(run):
        run.advance(steps)
        return [float(loss).hex() for loss in run.losses], run.evaluate()

    check_workload(setting_for(STUDY, folder, workload), TRIALS[0])
    whole = results(TrialRun(setting_for(STUDY, folder, workload), TRIALS[0]))
    for stop in range(1, steps):
        first = TrialRun(setting_for(STUDY, folder, workload), TRIALS[0])
        first.advance(stop)
        second = TrialRun(setting_for(STUDY, folder, workload), TRIALS[0])
        second.load(first.state())
        assert results(second) == whole, f"stopped at step {stop}"


def together_as_alone(workload, folder):
    found = []
    for train in (trained_together, trained_alone):
        recorder = train(setting_for(STUDY, folder / train.__name__, workload), TRIALS)
        assert {recorder.state(trial) for trial in TRIALS} == {State.COMPLETE}
        found.append([meaning(recorder, folder / train.__name__, trial) for trial in TRIALS])
    assert found[0] == found[1]


def of_tokens(batch):
    tokens = batch["tokens"].float()
    return torch.stack([tokens.sum(1), batch["mask"].sum(1).float()], 1) / 10, batch["label"]


def longer(known, name):
    """A recipe of the page, with more and longer reviews than stand there."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(2, 13, (60,), generator=generator).tolist()
    many = [(torch.randint(1, 9, (size,), generator=generator), size % 2) for size in sizes]
    known["reviews"] = lambda: many
    data = lambda self: tuner.Splits(training=many[:40], validation=many[40:])  # noqa: E731
    return type(name, (known[name],), {"data": data})


def test_a_collated_batch_is_padded_and_masked_as_by_hand():
    batch = Data.of(recipes()["Reviews"](), CPU).training.first(3)
    assert batch["tokens"].tolist() == [[5, 3, 9], [7, 2, 0], [4, 0, 0]]
    assert batch["mask"].tolist() == [[True] * 3, [True, True, False], [True, False, False]]
    assert batch["label"].tolist() == [1, 0, 1]


@pytest.mark.parametrize("name", ["Reviews", "Crops", "Sentences"])
def test_reviews_can_be_resumed_at_every_step(name, tmp_path):
    resumed_at_every_step(study_of(longer(recipes(), name), of_tokens), tmp_path)


def test_each_crop_counts_in_the_mean_of_a_metric(tmp_path):
    workload = study_of(longer(recipes(), "Crops"), of_tokens)
    model, data = workload.model({}), Data.of(workload, CPU)
    batch = workload.collate(data.validation.dataset)
    found = evaluate(workload, model, data.validation, batch_size=7)
    each = workload.metrics(model, batch)["loss"].detach()
    assert len(each) == 40
    assert found["validation/loss"] == pytest.approx(float(each.mean()), rel=1e-6)


def test_sentences_of_few_widths_train_together_with_the_bits_of_each_alone(tmp_path):
    known = recipes()
    workload = study_of(longer(known, "Sentences"), of_tokens)
    assert len(known["widths"]()) == 4
    together_as_alone(workload, tmp_path)


class Graphs(nn.Module):
    """Two rounds of message passing, and the mean over each graph."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, batch):
        source, target = batch.edge_index
        nodes = torch.relu(self.first(batch.x))
        nodes = nodes.index_add(0, target, nodes[source])
        whole = torch.zeros(batch.num_graphs, 8).index_add(0, batch.batch, nodes)
        return self.last(whole / torch.bincount(batch.batch, minlength=batch.num_graphs)[:, None])


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_a_batch_of_graphs_is_one_object_and_its_graphs_are_the_examples(tmp_path):
    known = recipes("torch_geometric")
    torch.manual_seed(0)
    kept = known["Molecules"]().data()
    kind = type("Molecules", (known["Molecules"],), {"data": lambda self: kept})
    workload = study_of(kind, lambda batch: (batch, batch.y), Graphs)
    resumed_at_every_step(workload, tmp_path)
    setting = setting_for(STUDY, tmp_path, workload)
    batch = setting.data.validation.first(7)
    assert type(batch).__name__ == "DataBatch"
    assert batch.num_graphs == 7
    model = workload.model({})
    singly = [workload.metrics(model, setting.data.validation.take(torch.tensor([i])))["loss"] for i in range(20)]
    measured = evaluate(workload, model, setting.data.validation, batch_size=6)
    assert measured["validation/loss"] == pytest.approx(float(torch.cat(singly).detach().mean()), rel=1e-5)
    with pytest.raises(NotFusible, match="a batch holds DataBatch"):
        Group([TrialRun(setting, trial) for trial in TRIALS])
    trained_alone(setting, TRIALS[:1])


@pytest.fixture
def token_files(tmp_path, monkeypatch):
    """Two files of tokens: the bytes of the program's own docstrings."""
    monkeypatch.chdir(tmp_path)
    text = np.frombuffer((tuner.__doc__ or "").encode(), np.uint8).astype(np.uint16)
    text[:-300].tofile("training.bin")
    text[-300:].tofile("validation.bin")
    return text


def test_windows_of_a_file_of_tokens_are_read_on_from_any_step_and_train_together(token_files, tmp_path):
    def features(batch):
        return torch.stack([batch[:, :-1].float().mean(1), batch[:, -2].float()], 1) / 128, batch[:, -1] % 2

    known = recipes()
    workload = study_of(known["Text"], features)
    resumed_at_every_step(workload, tmp_path)
    together_as_alone(workload, tmp_path)
    training = token_files[:-300]
    for number, window in zip(range(500), known["windows"]("training.bin", 0), strict=False):
        place = int(np.random.default_rng(number).integers(len(training) - 16))
        assert window.tolist() == training[place : place + 17].tolist()
    assert len({str(one.tolist()) for one in itertools.islice(known["windows"]("training.bin", 7), 500)}) > 300


def test_documents_of_hugging_face_are_read_on_from_any_step(tmp_path, monkeypatch):
    known = recipes("datasets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    lines = [json.dumps({"text": "x" * (number % 7), "label": number % 2}) for number in range(150)]
    for place, part in enumerate((lines[:60], lines[60:100])):
        Path(f"training-{place}.jsonl").write_text("\n".join(part) + "\n", encoding="utf-8")
    Path("validation.jsonl").write_text("\n".join(lines[100:]) + "\n", encoding="utf-8")

    def features(batch):
        length = torch.tensor([len(text) for text in batch["text"]], dtype=torch.float32)
        return torch.stack([length, length**2 / 10], 1), batch["label"]

    resumed_at_every_step(study_of(known["Documents"], features), tmp_path)
    files = ["training-0.jsonl", "training-1.jsonl"]
    seen = [one["text"] for one in itertools.islice(known["documents"](files, 0), 300)]
    assert sorted(seen[:100]) == sorted("x" * (number % 7) for number in range(100)), "each once in a pass"
    assert seen[:100] != ["x" * (number % 7) for number in range(100)], "shuffled"
    assert [one["text"] for one in itertools.islice(known["documents"](files, 137), 50)] == seen[137:187]


def write_shard(name, numbers):
    with tarfile.open(name, "w") as shard:
        for number in numbers:
            array = io.BytesIO()
            np.save(array, np.full(2, number, dtype=np.float32))
            for suffix, content in (("npy", array.getvalue()), ("cls", str(number % 2).encode())):
                member = tarfile.TarInfo(f"{number:04}.{suffix}")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_shards_of_webdataset_are_read_on_from_any_step(tmp_path, monkeypatch):
    known = recipes("webdataset")
    monkeypatch.chdir(tmp_path)
    for place in range(3):
        write_shard(f"training-{place}.tar", range(20 * place, 20 * place + 20))
    write_shard("validation.tar", range(60, 80))
    check_pictures(known, tmp_path)
    gc.collect()  # webdataset leaves the closing of its files to the garbage collector, which warns


def check_pictures(known, folder):
    workload = study_of(known["Pictures"], lambda batch: (batch[0] / 60, batch[1]))
    resumed_at_every_step(workload, folder)
    together_as_alone(workload, folder)
    shards = [f"training-{place}.tar" for place in range(3)]
    for start in (0, 19, 20, 47, 60, 125):
        found = [int(numbers[0]) for numbers, _ in itertools.islice(known["pictures"](shards, start), 70)]
        assert found == [(start + step) % 60 for step in range(70)]


def test_a_batch_encoding_of_transformers_is_a_batch(tmp_path):
    require("transformers")
    encoding = importlib.import_module("transformers").BatchEncoding

    class Encoded(longer(recipes(), "Reviews")):  # type: ignore[misc]
        def collate(self, examples):
            return encoding(super().collate(examples))

    workload = study_of(Encoded, of_tokens)
    resumed_at_every_step(workload, tmp_path)
    assert type(Data.of(workload, CPU).training.first(3)) is encoding

    class Fixed(Encoded):
        def collate(self, examples):
            batch = super().collate(examples)
            return encoding(
                {name: F.pad(part, (0, 12 - part.shape[1])) if part.dim() > 1 else part for name, part in batch.items()}
            )

    together_as_alone(study_of(Fixed, of_tokens), tmp_path)


def test_every_recipe_of_the_page_is_run_here():
    defined = set(re.findall(r"^class (\w+)\(", PAGE, re.MULTILINE))
    tested = Path(__file__).read_text(encoding="utf-8")
    assert defined
    assert {name for name in defined if f'"{name}"' not in tested} == set()
