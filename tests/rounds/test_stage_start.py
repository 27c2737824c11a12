"""The hand-over between stages: which weights, carried where, copied, checked, and the same for a whole campaign."""

import hashlib
import json
import re
import shutil
import signal
import sqlite3
from contextlib import closing

import pytest
import safetensors.torch
import torch
from support.processes import started, told
from support.shell import tuner

from tuner.design.study_file import declared_stage
from tuner.records.conclusions import StageStart
from tuner.rounds.opening import SessionOptions, opened_session
from tuner.storage.store import open_ledger
from tuner.training.models import build_model

__all__ = ["tuner"]

STAGES = """
import torch
import torch.nn.functional as F
from torch import nn
from tuner import *


def examples():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(120, 6, generator=generator)
    return x, (x[:, 0] + 0.5 * x[:, 1] > 0).long()


class Auto(Workload):
    batch_size = 8
    select_by = minimize("validation/loss")

    def data(self):
        x, _ = examples()
        return Splits(training=(x[:60],), validation=(x[60:],))

    def model(self, point):
        return nn.ModuleDict({"encoder": nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)), "decoder": nn.Linear(4, 6)})

    def loss(self, model, batch, point):
        return F.mse_loss(model["decoder"](model["encoder"](batch[0])), batch[0])

    def metrics(self, model, batch):
        return {"loss": ((model["decoder"](model["encoder"](batch[0])) - batch[0]) ** 2).mean(1)}


class Few(Auto):
    def data(self):
        x, y = examples()
        return Splits(training=(x[:20], y[:20]), validation=(x[60:], y[60:]))

    def model(self, point):
        return nn.ModuleDict({"encoder": nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)), "head": nn.Linear(4, 2)})

    def loss(self, model, batch, point):
        return F.cross_entropy(model["head"](model["encoder"](batch[0])), batch[1])

    def metrics(self, model, batch):
        return {"loss": F.cross_entropy(model["head"](model["encoder"](batch[0])), batch[1], reduction="none")}


def search(steps, trials=3):
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1))
    return Round("Which rate?", trials=trials, space=space, max_train_steps=steps)


pretraining = Campaign(Auto(), name="pre", evaluations=4, rounds=[search(16)])
campaign = Campaign(Few(), name="few", evaluations=4, start_from=START, rounds=[search(8)])
"""
BEST = 'best_of(pretraining, "encoder.*")'


def write(folder, start=BEST, **changes):
    path = folder / "stages.py"
    text = STAGES.replace("START", start)
    for was, now in changes.items():
        text = text.replace(was, now)
    path.write_text(text)
    return path


def start_of(folder, campaign="few", storage="runs/tuner.sqlite"):
    with open_ledger(str(folder / storage), create=False) as ledger:
        return ledger.conclusion(campaign, StageStart, ledger.study(campaign, "round-1").study_id)


def first_states(folder):
    """The training states that the trials of the later stage begin with, made again by the program."""
    stage = declared_stage(f"{folder / 'stages.py'}:few")
    options = SessionOptions(storage=str(folder / "runs/tuner.sqlite"), device="cpu")
    with opened_session(stage, options, dry_run=True) as session:
        row = session.ledger.study("few", "round-1")
        setup = session.loaded.setup(row.study)
        return [build_model(setup, one.trial).state_dict() for one in session.ledger.trials(row.study_id)]


def test_the_weights_of_the_best_checkpoint_are_carried_to_the_bit_and_the_rest_is_fresh(tuner, tmp_path, caplog):
    write(tmp_path)
    assert tuner("launch", "stages.py:pre").code == 0
    ran = tuner("launch", "stages.py:few")
    assert ran.code == 0
    assert "carried: 7 (encoder.0.weight, encoder.0.bias, encoder.1.weight, encoder.1.bias, ...); " in caplog.text
    assert "fresh: 2 (head" in caplog.text
    assert "left behind: 2 (decoder" in caplog.text
    start = start_of(tmp_path)
    chosen = start.candidates[0]
    best = best_of_the_first(tmp_path)
    assert (chosen.study, chosen.trial, chosen.step) == ("round-1", best[0], best[1])
    source = tmp_path / "runs/checkpoints" / best[2]
    copy = tmp_path / "runs/checkpoints" / chosen.file
    assert hashlib.sha256(copy.read_bytes()).hexdigest() == chosen.digest == best[3]
    weights = safetensors.torch.load_file(source)
    states = first_states(tmp_path)
    for state in states:
        for name, tensor in state.items():
            assert not name.startswith("encoder.") or torch.equal(tensor, weights[name])
    assert not torch.equal(states[0]["head.weight"], states[1]["head.weight"])


def best_of_the_first(folder):
    """Trial, step, file and digest of the best checkpoint of the first stage, read from the records."""
    with open_ledger(str(folder / "runs/tuner.sqlite"), create=False) as ledger:
        records = ledger.trials(ledger.study("pre", "round-1").study_id)
    kept = [(one.value, record.number, one) for record in records for one in record.checkpoints if one.kind == "best"]
    _, number, best = min(kept, key=lambda each: each[0])
    return number, best.step, best.file, best.digest


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ('best_of(pretraining, "encodr.*")', "carries 'encodr.*', and no tensor of the model has such a name"),
        ("best_of(pretraining)", "head.weight is to be carried from .*, which has no such tensor"),
        ('best_of(pretraining, renamed={"head": "decoder"})', r"\(there decoder.weight\) .* shape \(2, 4\)"),
        ('best_of("nobody", "encoder.*")', "no such campaign .* Train the study file that declares it"),
        ('best_of(pretraining, "encoder.*", candidates=4)', "pre' has 3 complete trials to start from"),
        ('weights_from("none.safetensors")', "there is no such file"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_error_before_anything_is_trained(tuner, tmp_path, start, message):
    write(tmp_path, start)
    assert tuner("launch", "stages.py:pre").code == 0
    ran = tuner("launch", "stages.py:few")
    assert ran.code == 2
    assert re.search(message, " ".join(ran.err.split())), ran.err
    assert "few" not in tuner("status").out


def test_an_earlier_stage_that_is_not_finished_is_named_with_its_command(tuner, tmp_path):
    write(tmp_path)
    assert tuner("launch", "stages.py:few").code == 2
    ran = tuner("launch", "stages.py:few")
    assert "there is no such campaign" in ran.err
    assert "tuner run stages.py:pre" in ran.err


def test_several_candidates_are_a_scientific_choice_with_weights_of_their_own(tuner, tmp_path):
    write(tmp_path, 'best_of(pretraining, "encoder.*", candidates=2)', **{"search(8)": "search(8, trials=6)"})
    tuner("launch", "stages.py:pre")
    ran = tuner("launch", "stages.py:few")
    assert "nothing reads the hyperparameter" not in ran.err
    start = start_of(tmp_path)
    assert len({one.digest for one in start.candidates}) == 2
    with open_ledger(str(tmp_path / "runs/tuner.sqlite"), create=False) as ledger:
        row = ledger.study("few", "round-1")
        chosen = [int(record.point["start_from"]) for record in ledger.trials(row.study_id)]
        assert row.study.scientific == ("start_from",)
    assert set(chosen) == {1, 2}
    files = [safetensors.torch.load_file(tmp_path / "runs/checkpoints" / one.file) for one in start.candidates]
    for number, state in zip(chosen, first_states(tmp_path), strict=True):
        assert torch.equal(state["encoder.0.weight"], files[number - 1]["encoder.0.weight"])


def test_a_candidate_of_another_shape_is_found_before_any_trial_is_trained(tuner, tmp_path):
    wide = {
        'nn.Linear(6, 4), nn.BatchNorm1d(4)), "decoder": nn.Linear(4, 6)': (
            'nn.Linear(6, w := point["width"]), nn.BatchNorm1d(w)), "decoder": nn.Linear(w, 6)'
        ),
        "search(16)": "Round('?', 4, SearchSpace(learning_rate=1e-2, width=choice(4, 5)), max_train_steps=16)",
    }
    write(tmp_path, 'best_of(pretraining, "encoder.*", candidates=4)', **wide, **{"search(8)": "search(8, trials=8)"})
    assert tuner("launch", "stages.py:pre").code == 0
    ran = tuner("launch", "stages.py:few")
    assert ran.code == 2
    assert "has the shape (4, 6) here, (5, 6) there" in ran.err
    assert "complete" not in ran.err


def test_a_file_of_weights_is_a_start_and_may_be_overwritten_afterwards(tuner, tmp_path):
    weights = {"body.weight": torch.ones(4, 6), "body.bias": torch.zeros(4)}
    torch.save(weights, tmp_path / "bert.pt")
    write(tmp_path, 'weights_from("bert.pt", "encoder.0.*", renamed={"encoder.0": "body"}, steps=500)')
    assert tuner("launch", "stages.py:few").code == 0
    start = start_of(tmp_path)
    assert start.inherited_steps == 500
    assert torch.equal(first_states(tmp_path)[0]["encoder.0.weight"], torch.ones(4, 6))
    torch.save({"body.weight": torch.zeros(4, 6)}, tmp_path / "bert.pt")
    assert tuner("launch", "stages.py:few").code == 0
    assert start_of(tmp_path) == start
    (tmp_path / "bert.pt").unlink()
    for command in ("launch", "run"):
        ran = tuner(command, "stages.py:few")
        assert "bert.pt" not in ran.err, ran.err


def test_a_file_that_is_not_the_declared_one_is_refused(tuner, tmp_path):
    torch.save({"encoder.0.weight": torch.ones(4, 6), "encoder.0.bias": torch.zeros(4)}, tmp_path / "bert.pt")
    write(tmp_path, f'weights_from("bert.pt", "encoder.0.*", sha256="{"0" * 64}")')
    ran = tuner("launch", "stages.py:few")
    assert (ran.code, "get the right file, or write its digest" in " ".join(ran.err.split())) == (2, True)
    (tmp_path / "bert.pt").write_bytes(b"no weights")
    write(tmp_path, 'weights_from("bert.pt", "encoder.0.*")')
    ran = tuner("launch", "stages.py:few")
    assert "holds no weights to start from" in " ".join(ran.err.split())


def test_an_earlier_stage_of_another_storage_is_copied_and_needed_no_more(tuner, tmp_path):
    write(tmp_path)
    tuner("launch", "stages.py:pre", "--storage", "other/first.sqlite")
    write(tmp_path, 'best_of("pre", "encoder.*", storage="other/first.sqlite")')
    assert tuner("launch", "stages.py:few").code == 0
    start = start_of(tmp_path)
    assert start.candidates[0].storage.endswith("first.sqlite")
    shutil.rmtree(tmp_path / "other")
    ran = tuner("launch", "stages.py:few", "--retry-failed")
    assert ran.code == 0, ran.err
    assert tuner("verify", "few").code == 0


def test_a_better_pretraining_later_changes_nothing_and_is_told(tuner, tmp_path):
    write(tmp_path)
    tuner("launch", "stages.py:pre")
    tuner("launch", "stages.py:few")
    before = start_of(tmp_path)
    longer = 'rounds=[search(16), Round("Longer?", promote=1, fresh=0, max_train_steps=64)]'
    write(tmp_path, **{"rounds=[search(16)]": longer})
    tuner("launch", "stages.py:pre", "--round", "2")
    ran = tuner("launch", "stages.py:few")
    assert ran.code == 0, ran.err
    assert start_of(tmp_path) == before
    assert "stale start" in ran.err + ran.out
    found = " ".join(tuner("check", "few").out.split())
    assert "of pre round-2 at step" in found
    assert "Give the campaign another name to start from the newer weights" in found


def test_a_damaged_copy_is_named_by_verify_and_by_each_command(tuner, tmp_path):
    write(tmp_path)
    tuner("launch", "stages.py:pre")
    tuner("launch", "stages.py:few")
    copy = tmp_path / "runs/checkpoints" / start_of(tmp_path).candidates[0].file
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    checked = tuner("verify", "few")
    assert checked.code == 3
    assert "which its trials start from, has another sha256" in " ".join(checked.out.split())
    shutil.rmtree(tmp_path / "runs/checkpoints/pre")
    ran = tuner("run", "stages.py")
    assert "are not those that were chosen" in " ".join(ran.err.split())


def test_a_copy_that_was_lost_is_made_again_while_its_source_is_there(tuner, tmp_path, caplog):
    write(tmp_path)
    tuner("launch", "stages.py:pre")
    tuner("launch", "stages.py:few")
    copy = tmp_path / "runs/checkpoints" / start_of(tmp_path).candidates[0].file
    content = copy.read_bytes()
    for spoil in (copy.unlink, lambda: copy.write_bytes(content[:9])):
        spoil()
        ran = tuner("launch", "stages.py:few")
        assert ran.code == 0, ran.err
        assert "is copied again" in caplog.text
        caplog.clear()
        assert copy.read_bytes() == content
        assert tuner("verify", "few").code == 0


def test_what_a_killed_copy_left_is_swept_and_the_folder_may_be_no_link(tuner, tmp_path):
    write(tmp_path)
    tuner("launch", "stages.py:pre")
    starts, outside = tmp_path / "runs/checkpoints/starts", tmp_path / "outside"
    outside.mkdir()
    starts.symlink_to(outside)
    refused = tuner("launch", "stages.py:few")
    assert (refused.code, "leads out of the checkpoint folder" in " ".join(refused.err.split())) == (2, True)
    assert not [*outside.iterdir()]
    starts.unlink()
    assert tuner("launch", "stages.py:few").code == 0
    copy = tmp_path / "runs/checkpoints" / start_of(tmp_path).candidates[0].file
    (starts / f".{copy.name}.123abc.tmp").write_bytes(b"half")
    assert tuner("launch", "stages.py:few").code == 0
    assert [one.name for one in starts.iterdir()] == [copy.name]


def test_a_file_of_weights_that_changed_is_told_and_another_digest_is_refused(tuner, tmp_path, caplog):
    torch.save({"encoder.0.weight": torch.ones(4, 6), "encoder.0.bias": torch.zeros(4)}, tmp_path / "bert.pt")
    write(tmp_path, 'weights_from("bert.pt", "encoder.0.*")')
    assert tuner("launch", "stages.py:few").code == 0
    assert "bert.pt has changed since" not in caplog.text
    torch.save({"encoder.0.weight": torch.zeros(4, 6), "encoder.0.bias": torch.zeros(4)}, tmp_path / "bert.pt")
    assert tuner("launch", "stages.py:few").code == 0
    assert "bert.pt has changed since few began" in caplog.text
    digest = hashlib.sha256((tmp_path / "bert.pt").read_bytes()).hexdigest()
    write(tmp_path, f'weights_from("bert.pt", "encoder.0.*", sha256="{digest}")')
    refused = tuner("launch", "stages.py:few")
    assert (refused.code, "Give the campaign another name" in " ".join(refused.err.split())) == (2, True)


def test_what_is_no_readable_file_of_weights_is_one_error(tuner, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for named, message in (("folder", "a folder: name the file in it"), ("~/a.pt", "/home/a.pt, and there is no such")):
        write(tmp_path, f'weights_from("{named}", "encoder.0.*")')
        ran = tuner("launch", "stages.py:few")
        assert (ran.code, message in "".join(ran.err.split("\n"))) == (2, True), ran.err


def test_the_checkpoints_of_both_stages_may_lie_in_different_folders(tuner, tmp_path):
    write(tmp_path)
    assert tuner("launch", "stages.py:pre", "--checkpoints", "first").code == 0
    ran = tuner("launch", "stages.py:few", "--checkpoints", "second")
    assert ran.code == 0, ran.err
    assert (tmp_path / "second" / start_of(tmp_path).candidates[0].file).is_file()


def test_the_same_storage_may_be_named_and_is_found_from_another_folder(tuner, tmp_path, monkeypatch):
    write(tmp_path)
    tuner("launch", "stages.py:pre")
    write(tmp_path, 'best_of("pre", "encoder.*", storage="runs/tuner.sqlite")')
    assert tuner("launch", "stages.py:few").code == 0
    assert start_of(tmp_path).candidates[0].storage == ""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert tuner("launch", "../stages.py:few").code == 0
    with open_ledger(str(tmp_path / "elsewhere/runs/tuner.sqlite"), create=False) as ledger:
        assert ledger.conclusion("few", StageStart, ledger.study("few", "round-1").study_id).candidates[0].storage


def test_room_is_never_saved_at_the_candidates_of_a_later_stage(tuner, tmp_path):
    write(tmp_path, 'best_of(pretraining, "encoder.*", candidates=3)', **{"search(8)": "search(8, trials=6)"})
    assert tuner("launch", "stages.py:pre", "--keep-checkpoints", "1KB").code == 0
    ran = tuner("launch", "stages.py:few")
    assert ran.code == 0, ran.err
    assert len(start_of(tmp_path).candidates) == 3


def test_an_adopted_trial_without_its_weights_hands_over_those_of_its_contest(tuner, tmp_path):
    write(tmp_path, **{"search(16)": "search(16, trials=4)"})
    assert tuner("launch", "stages.py:pre", "--keep-checkpoints", "1KB").code == 0
    rows = [line.split() for line in tuner("trials", "pre", "--round", "1").out.splitlines() if " complete " in line]
    _, second, *_, last = sorted(rows, key=lambda row: float(row[2]))
    sides = ("--candidate", f"round-1/{second[0]}", "--baseline", f"round-1/{last[0]}")
    contest = tuner("adopt", "stages.py:pre", *sides, "--keep-checkpoints", "1KB")
    assert ": adopt " in contest.out, contest.out
    ran = tuner("launch", "stages.py:few")
    assert ran.code == 0, ran.err
    chosen = start_of(tmp_path).candidates[0]
    assert (chosen.adopted, chosen.study) == (True, f"adopt-round-1-{second[0]}-over-round-1-{last[0]}")
    assert chosen.trial % 2 == 0, "of the candidate, not of the baseline"


def test_the_steps_behind_a_third_stage_are_those_of_the_candidate_that_its_trial_started_from(tuner, tmp_path):
    second = {  # a model that starts from the best candidate is told to be worse
        "search(8)": "search(8, trials=4)",
        'return nn.ModuleDict({"encoder": nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)), "head"': (
            'net = nn.ModuleDict({"encoder": nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)), "head"'
        ),
        '"head": nn.Linear(4, 2)})': (
            '"head": nn.Linear(4, 2)})\n        net.worse = 100 * (point.get("start_from") == 1)\n        return net'
        ),
        'batch[1], reduction="none")}': 'batch[1], reduction="none") + model.worse}',
    }
    write(tmp_path, 'best_of(pretraining, "encoder.*", candidates=2)', **second)
    with (tmp_path / "stages.py").open("a") as file:
        file.write(
            'third = Campaign(Few(), name="third", evaluations=4, start_from=best_of("few"), rounds=[search(4)])'
        )
    tuner("launch", "stages.py:pre")
    assert tuner("launch", "stages.py:few").code == 0
    with closing(sqlite3.connect(tmp_path / "runs/tuner.sqlite")) as records, records:
        known = records.execute("SELECT id, data FROM conclusion WHERE kind = 'start'").fetchall()
        for row, text in known:
            told = json.loads(text)
            for steps, one in zip((1000, 2000), told["candidates"], strict=True):
                one["steps"] = steps
            records.execute("UPDATE conclusion SET data = ? WHERE id = ?", (json.dumps(told), row))
    assert tuner("launch", "stages.py:third").code == 0
    chosen = start_of(tmp_path, "third").candidates[0]
    assert chosen.steps == chosen.step + 2000


BY_HAND = """

class ByHand(Few):
    def model(self, point):
        model = super().model(point)
        found = load_file("weights.safetensors")
        model.load_state_dict({name: one for name, one in found.items() if "encoder" in name}, strict=False)
        return model


by_hand = Campaign(ByHand(), evaluations=4, rounds=[search(8)])
"""


def test_all_ways_of_training_start_as_a_model_that_loads_the_weights_itself(tuner, tmp_path):
    path = write(tmp_path)
    path.write_text("from safetensors.torch import load_file\n" + path.read_text())
    tuner("launch", "stages.py:pre")
    storages = {"alone": ("--fuse", "off"), "fused": (), "workers": ("--workers", "2")}
    for name, options in storages.items():
        shutil.copytree(tmp_path / "runs", tmp_path / name)
        tuner("adopt-storage", f"{name}/tuner.sqlite", "--checkpoints", f"{name}/checkpoints", "--yes")
        ran = tuner("launch", "stages.py:few", "--storage", f"{name}/tuner.sqlite", *options)
        assert ran.code == 0, ran.err
    start = start_of(tmp_path, storage="alone/tuner.sqlite").candidates[0]
    shutil.copy(tmp_path / "alone/checkpoints" / start.file, tmp_path / "weights.safetensors")
    path.write_text(path.read_text() + BY_HAND)
    assert tuner("launch", "stages.py:by_hand").code == 0
    expected = best_digests(tmp_path / "runs/tuner.sqlite", "stages-by_hand")
    for name in storages:
        assert best_digests(tmp_path / name / "tuner.sqlite", "few") == expected


def best_digests(storage, campaign):
    with open_ledger(str(storage), create=False) as ledger:
        records = ledger.trials(ledger.study(campaign, "round-1").study_id)
        return [[one.digest for one in record.checkpoints if one.kind == "best"] for record in records]


@pytest.mark.slow
def test_killed_within_and_between_stages_the_rows_are_the_same(tmp_path):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
    for stage in ("pre", "few"):
        told(started(tmp_path / "whole", "launch", f"stages.py:{stage}"))
        process = started(tmp_path / "killed", "launch", f"stages.py:{stage}")
        process.send_signal(signal.SIGKILL)
        told(process)
        code, said = told(started(tmp_path / "killed", "launch", f"stages.py:{stage}"))
        assert code == 0, said
    for stage in ("pre", "few"):
        storages = [tmp_path / name / "runs/tuner.sqlite" for name in ("whole", "killed")]
        assert best_digests(storages[0], stage) == best_digests(storages[1], stage)


@pytest.mark.parametrize(
    ("now", "message"),
    [
        ('best_of(pretraining, "encoder.0.*")', r"argument start_from was encoder\.\* of .*, is encoder\.0\.\* of"),
        ('best_of(pretraining, "encoder.*", fresh="*.bias")', r"is encoder\.\* but \*\.bias of"),
        ('weights_from("own.pt", "encoder.*")', "argument start_from was"),
        ("None", "argument start_from is gone"),
    ],
)
def test_another_start_than_that_of_a_study_that_has_begun_is_refused(tuner, tmp_path, now, message):
    write(tmp_path)
    tuner("launch", "stages.py:pre")
    tuner("launch", "stages.py:few")
    best = best_of_the_first(tmp_path)
    weights = safetensors.torch.load_file(tmp_path / "runs/checkpoints" / best[2])
    torch.save({name: tensor + 1 for name, tensor in weights.items()}, tmp_path / "own.pt")
    write(tmp_path, now)
    ran = tuner("launch", "stages.py:few", "--retry-failed")
    assert ran.code == 2
    assert re.search(message, " ".join(ran.err.split())), ran.err
