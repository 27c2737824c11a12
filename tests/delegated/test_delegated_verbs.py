"""Every command on a study that a loop trains: what it does, and what it says of what it cannot do."""

import json

import pytest
import safetensors.torch
import torch
from support.shell import run_in
from support.shown_loops import FOLLOW, KEEP_FILES, loop_study

import tuner as api
from tuner.errors import CorruptCheckpoint, StorageError
from tuner.records import Checkpoint
from tuner.storage.store import open_ledger
from tuner.training.checkpoints import CheckpointFolder, export_weights

STORAGE = ("--storage", "records.sqlite")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a study of two rounds; its loop follows the schedule."""
    folder = tmp_path_factory.mktemp("verbs")
    with pytest.MonkeyPatch.context() as patched:
        assert run_in(folder, patched, "run", loop_study(folder), "--yes", "-q", *STORAGE) == 0
    return folder


@pytest.fixture
def here(trained, tuner, monkeypatch):
    """`tuner` in the folder of the trained study, with its storage."""
    monkeypatch.chdir(trained)
    return lambda *words: tuner(*words, *STORAGE)


def trial_records(folder, study):
    with open_ledger(str(folder / "records.sqlite")) as ledger:
        return ledger.trials(ledger.study("mine", study).study_id)


def test_what_trains_stacked_models_is_refused_before_anything_is_written(tmp_path, tuner):
    loop_study(tmp_path)
    for words, told in (
        (("--fuse", "4"), "--fuse 4 trains trials as one stacked model, and Mine.train trains each by itself"),
        (("--profile", "fast"), "--profile fast is about trials that train as one stacked model"),
    ):
        ran = tuner("run", "mine.py", *words)
        assert (ran.code, ran.err.count("error:")) == (2, 1)
        assert told in " ".join(ran.err.split())
    assert [one.name for one in tmp_path.iterdir() if one.suffix == ".sqlite" or one.name == "runs"] == []


def test_a_longer_round_takes_over_steps_where_the_first_look_found_that_it_may(trained):
    first, second = trial_records(trained, "round-1"), trial_records(trained, "round-2")
    assert [one.state.value for one in (*first, *second)] == ["complete"] * (4 + 4)
    assert len({one.seed for one in first} & {one.seed for one in second}) == 2
    assert {one.inherited.steps for one in second} == {0, 48}  # those before the decay of round 1


def test_a_loop_that_depends_on_the_length_has_fresh_seeds_in_a_longer_round_and_whole_curves(tmp_path, tuner):
    """And in another session: the second command knows what the first one found."""
    loop_study(tmp_path, follow=f"{FOLLOW}; trial.max_train_steps")
    assert tuner("launch", "mine.py", "--round", "1", "-q", *STORAGE).code == 0
    told = tuner("launch", "mine.py", "--round", "2", "-q", *STORAGE)
    assert told.code == 0, told.err
    first, second = trial_records(tmp_path, "round-1"), trial_records(tmp_path, "round-2")
    assert not {one.seed for one in first} & {one.seed for one in second}
    assert {one.inherited.steps for one in second} == {0}
    assert len(second) == 4  # two points, each twice
    assert tuner("launch", "mine.py", "--round", "2", "-q", *STORAGE).code == 0
    lengths = ("--lengths", "40,80,120", "--seeds", "2")
    priced = tuner("budget-curve", "mine.py", *lengths, "--dry-run", *STORAGE)
    rows = [line.split() for line in priced.out.splitlines() if line.startswith("curve-")]
    assert [(row[1], row[2], row[3]) for row in rows] == [("2", "120", "240"), ("2", "80", "160"), ("2", "40", "80")]
    assert "saved" not in priced.out
    assert "--fuse" not in priced.out + priced.err
    ran = tuner("budget-curve", "mine.py", *lengths, "-q", *STORAGE)
    assert ran.code in (0, 3)
    assert "480 steps trained; each length was trained from its first step" in " ".join((ran.out + ran.err).split())
    for length in (40, 80, 120):
        name = next(row[0] for row in rows if row[2] == str(length))
        records = trial_records(tmp_path, name)
        assert {(one.step, one.inherited.steps) for one in records} == {(length, 0)}
        assert {one.schedule.decay_start for one in records} == {round(0.8 * length)}


def test_best_exports_the_weights_of_the_kept_module(here, trained):
    ran = here("best", "mine", "--export", "model.safetensors")
    assert ran.code == 0
    assert "wrote model.safetensors: 4 tensors, 146 numbers, of trial" in " ".join((ran.out + ran.err).split())
    weights = safetensors.torch.load_file(trained / "model.safetensors")
    model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(16, 2))
    model.load_state_dict(weights)
    told = json.loads(here("best", "mine", "--format", "json").out)
    x = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] + 0.5 * x[:, 1] > 0).long()
    loss = torch.nn.functional.cross_entropy(model.eval()(x[50:]), y[50:])
    assert loss.item() == told["selected_value"]
    assert told["optimizer"] is None


def test_replay_gives_the_recorded_bits_and_promises_no_less_than_the_first_look_found(here):
    ran = here("replay", "mine.py", "--round", "2", "--trial", "1")
    assert ran.code == 0
    assert "the same bits as recorded" in ran.out + ran.err
    assert "not promised" not in ran.out + ran.err


def test_a_budget_curve_goes_on_from_the_steps_before_the_decay(here, trained):
    lengths = ("--lengths", "40,80,120", "--seeds", "2")
    priced = here("budget-curve", "mine.py", *lengths, "--dry-run")
    assert "saved: " in priced.out + priced.err
    ran = here("budget-curve", "mine.py", *lengths, "-q")
    assert ran.code in (0, 3)
    told = " ".join((ran.out + ran.err).split())
    assert "separate runs would have trained 480" in told
    trained_steps = int(told.split(" steps trained;")[0].split()[-1])
    assert trained_steps < 480


LOSS = 'found["training/loss"] = F.cross_entropy(model(X[:50]), Y[:50])'


def test_the_stability_of_a_loop_is_seen_in_the_loss_that_it_reports(tmp_path, tuner):
    loop_study(tmp_path, report=LOSS)
    assert tuner("launch", "mine.py", "--round", "1", "-q", *STORAGE).code == 0
    options = ("--above", "4,1000", "--steps", "60", "--seeds", "1", "-q", "-f", "json")
    ran = tuner("stability", "mine.py", *options, *STORAGE)
    assert ran.code in (0, 3), ran.err
    (finding,) = json.loads(ran.out)["findings"]
    assert [(row["multiple"], row["unstable"]) for row in finding["evidence"]][-1] == (1000.0, 1)
    assert "Gradient norms were not recorded." in finding["summary"]
    with open_ledger(str(tmp_path / "records.sqlite")) as ledger:
        (row,) = [row for row in ledger.studies("mine") if row.study.kind == "stability"]
        assert len(row.study.budget.evaluation_steps) == 60, "a loop is seen at its evaluations alone"
        loss = [one for one in ledger.measurements(row.study_id).curves if one.metric == "training/loss"]
    assert {len(one.steps) for one in loss} == {60}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "Mine reports no training loss, in which instability shows (training/error_rate, validation/loss)"),
        ({"report": LOSS, "follow": "pass"}, "Mine trains at learning rates of its own, so neither a higher rate nor"),
    ],
)
def test_a_loop_whose_stability_cannot_be_seen_is_refused(changes, told, tmp_path, tuner):
    loop_study(tmp_path, **changes)
    assert tuner("launch", "mine.py", "--round", "1", "-q", *STORAGE).code == 0
    ran = tuner("stability", "mine.py", "-q", *STORAGE)
    assert ran.code == 2, ran.err
    assert told in " ".join(ran.err.split())


def test_the_test_split_is_scored_elsewhere(here):
    ran = here("score-test", "mine.py")
    assert ran.code == 2
    assert "Mine evaluates by itself" in ran.err
    assert "--export model.safetensors" in ran.err


def test_exploit_adopt_expand_and_upkeep(here, trained):
    assert (
        here("exploit", "mine.py", "--round", "1", "--trials", "4", "--batch", "2", "-q", "--although", "x").code == 0
    )
    found = here("adopt", "mine.py", "--candidate", "1/0", "--baseline", "1/1", "--replicates", "2", "-q")
    assert found.code in (0, 3)
    assert len(trial_records(trained, "adopt-round-1-0-over-round-1-1")) == 4
    assert here("launch", "mine.py", "--round", "1", "--retry-failed", "-q").code == 0
    assert here("worker", "mine.py", "--until", "study", "-q").code == 0
    assert here("verify", "mine").code == 0
    assert here("status", "mine").code == 0
    assert here("backup", "copy.sqlite").code == 0
    assert here("export", "mine", "--to", "csv", "tables").code == 0
    assert here("export", "mine", "--to", "optuna", "study.db").code == 0


def test_a_changed_loop_is_named_and_can_be_allowed(tmp_path, tuner):
    loop_study(tmp_path)
    assert tuner("launch", "mine.py", "--round", "1", "--trials", "2", "-q").code == 0
    loop_study(tmp_path, report='found["training/loss"] = loss.detach()')
    ran = tuner("launch", "mine.py", "--round", "1", "--trials", "3", "-q")
    assert ran.code == 2
    assert "train" in ran.err
    assert "--allow-changed-code" in ran.err
    assert tuner("launch", "mine.py", "--round", "1", "--trials", "3", "-q", "--allow-changed-code").code == 0


def test_kept_files_are_exported_as_a_folder_that_is_not_there_yet(tmp_path, tuner):
    loop_study(tmp_path, keep=KEEP_FILES)
    assert tuner("launch", "mine.py", "--round", "1", "--trials", "2", "-q").code == 0
    ran = tuner("best", "mine", "--export", "model.safetensors")
    assert ran.code == 0
    assert "wrote model: a folder of 2 files, as the training wrote them, of trial" in " ".join(
        (ran.out + ran.err).split()
    )
    weights = torch.load(tmp_path / "model" / "weights.pt", weights_only=True)
    assert weights["0.weight"].shape == (16, 6)
    assert (tmp_path / "model" / "deep" / "optimizer.pt").is_file()
    assert not (tmp_path / "model.safetensors").exists()
    again = tuner("best", "mine", "--export", "model")
    assert again.code == 2
    assert "model is there already" in " ".join(again.err.split())
    (tmp_path / "empty").mkdir()
    assert api.export_weights("mine", tmp_path / "empty") == tmp_path / "empty"


def test_a_kept_file_never_leaves_its_folder(tmp_path):
    content = {"file:../out": torch.zeros(1, dtype=torch.uint8)}
    written = CheckpointFolder(tmp_path / "root", "place").write_weights(1, content, None)
    with pytest.raises(CorruptCheckpoint, match="leads out of its folder"):
        export_weights(tmp_path / "root", written, tmp_path / "target")
    assert not (tmp_path / "out").exists()
    assert isinstance(written, Checkpoint)


def test_a_file_in_the_place_of_the_folder_is_not_touched(tmp_path):
    content = {"file:a.bin": torch.frombuffer(bytearray(b"PK\x03\x04 no archive"), dtype=torch.uint8)}
    written = CheckpointFolder(tmp_path / "root", "place").write_weights(1, content, None)
    (tmp_path / "target").write_text("mine")
    with pytest.raises(StorageError, match="is there already"):
        export_weights(tmp_path / "root", written, tmp_path / "target")
    assert (tmp_path / "target").read_text() == "mine"
    assert export_weights(tmp_path / "root", written, tmp_path / "new").files == ("a.bin",)
    assert (tmp_path / "new" / "a.bin").read_bytes() == b"PK\x03\x04 no archive"


def test_a_loop_without_train_is_for_ask_and_tell(tmp_path, tuner):
    loop_study(tmp_path)
    text = (tmp_path / "mine.py").read_text().replace("def train(self", "def helper(self")
    (tmp_path / "mine.py").write_text(text)
    ran = tuner("run", "mine.py", "-q")
    assert ran.code == 2
    assert "Mine has no train(self, trial)" in " ".join(ran.err.split())


@pytest.mark.slow
def test_processes_and_a_quota(tmp_path, tuner):
    loop_study(tmp_path)
    assert tuner("launch", "mine.py", "--round", "1", "--workers", "2", "--keep-checkpoints", "1MB", "-q").code == 0
    assert tuner("launch", "mine.py", "--round", "2", "--workers", "2", "-q").code == 0
    assert tuner("verify", "mine").code == 0
