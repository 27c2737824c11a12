"""A study is what its trials are made of: changed code, arguments, weights and data are refused and never inherited."""

import json

import pytest
import torch
from support.records import rows
from support.study_files import write_study

BLOCKS = """
from torch import nn

def net(dropout):
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 2))

def unused():
    return 1
"""
MODEL = 'nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(point["dropout"]), nn.Linear(16, 2))'
IMPORTS = ("from tuner import *", "from tuner import *\nfrom blocks import net")
USES_BLOCKS = (IMPORTS, (MODEL, 'net(point["dropout"])'))


@pytest.fixture
def write(tmp_path):
    def make(*, blocks=BLOCKS, name="tiny.py", replace=USES_BLOCKS, trials=2, steps=20):
        (tmp_path / "blocks.py").write_text(blocks)
        more = 'regime="not_compute_bound",'
        return write_study(tmp_path, name, trials=trials, steps=steps, more=more, replace=replace)

    return make


def inherited(tuner, name, number):
    return [row["inherited"] for row in json.loads(tuner("trials", name, "--round", number, "-f", "json").out)]


def count(tmp_path, query):
    return rows(tmp_path, query)[0][0]


def test_a_changed_module_beside_the_study_is_refused_and_nothing_of_it_is_inherited(tuner, write, tmp_path):
    assert tuner("launch", write()).code == 0
    before = rows(tmp_path, "select * from trial order by id")
    tanh = BLOCKS.replace("ReLU", "Tanh")
    refused = tuner("launch", write(blocks=tanh, trials=3))
    assert refused.code == 2
    assert "(blocks.py: function net changed)" in refused.err
    assert "give the campaign another name (its trials are then trained from their first step)" in refused.err
    assert rows(tmp_path, "select * from trial order by id") == before
    assert tuner("launch", write(blocks=tanh, name="renamed.py"), "--max-train-steps", 20).code == 0
    assert inherited(tuner, "renamed", 1) == [0, 0]
    assert tuner("launch", write(), "--round", 2, "--max-train-steps", 40).code == 0
    assert max(inherited(tuner, "tiny", 2)) > 0, "of the same code the first steps are taken over"
    replay = tuner("replay", write(), "--round", 2, "--trial", 0)
    assert (replay.code, "0 differ" in replay.out) == (0, True)
    assert "are trained from the first one; of the recorded ones" in replay.err
    other = tuner("replay", write(blocks=tanh), "--round", 2, "--trial", 0)
    assert (other.code, "0 differ" in other.out) == (3, False)
    first, *_, last = other.err.splitlines()
    assert "not the one that was recorded: blocks.py: function net changed" in first
    assert "blocks.py: function net changed" in last, "the cause, and no talk of the machine"


def test_what_was_trained_after_a_change_that_is_allowed_has_keys_of_its_own(tuner, write, tmp_path):
    assert tuner("launch", write()).code == 0
    changed = write(blocks=BLOCKS.replace("ReLU", "Tanh"), trials=3)
    assert tuner("launch", changed, "--allow-changed-code").code == 0
    launches = [
        json.loads(text)["fingerprint"] for (text,) in rows(tmp_path, "select environment from launch order by id")
    ]
    ((kept,),) = rows(tmp_path, "select fingerprint from study")
    assert launches[0] == kept != launches[1]


@pytest.mark.parametrize(
    "blocks",
    [
        BLOCKS.replace("def net", "# a remark\n\n\ndef net"),
        BLOCKS.replace("    return nn", '    """Makes it."""\n    return nn'),
    ],
)
def test_remarks_and_docstrings_in_a_module_change_nothing(tuner, write, blocks):
    assert tuner("launch", write()).code == 0
    assert tuner("launch", write(blocks=blocks, trials=3)).code == 0


PLUGIN = """
import importlib.util
from pathlib import Path


def loaded(name):
    path = Path(__file__).parent / "plugins" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"plugin_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Tiny"""
PLUGGED = (("\n\nclass Tiny", PLUGIN), (MODEL, 'loaded("relu").net(point["dropout"])'))


def test_a_plug_in_that_only_the_model_loads_is_seen_in_one_process_and_in_several(tuner, write, tmp_path):
    (tmp_path / "plugins").mkdir()
    plugin = tmp_path / "plugins" / "relu.py"
    plugin.write_text(BLOCKS)
    study = write(replace=PLUGGED)
    assert tuner("launch", study).code == 0
    assert "plugins/relu.py" in json.loads(rows(tmp_path, "select identity from study")[0][0])["code"]
    more = write(replace=PLUGGED, trials=4)
    several = tuner("launch", more, "--workers", 2)
    assert several.code == 0, several.err
    keys = rows(tmp_path, "select count(distinct numerics), count(*) from trial")
    assert keys == [(1, 4)]
    assert tuner("launch", more, "--round", 2, "--max-train-steps", 40).code == 0
    assert max(inherited(tuner, "tiny", 2)) > 0, "whoever trained it, the key is the same"
    plugin.write_text(BLOCKS.replace("ReLU", "Tanh"))
    refused = tuner("launch", write(replace=PLUGGED, trials=5))
    assert (refused.code, "plugins/relu.py: function net changed" in refused.err) == (2, True)


ARGUMENTS = (
    (
        "\n\nclass Tiny",
        "\nfrom dataclasses import dataclass\n\n\n@dataclass\nclass Config:\n    smoothing: float\n\n\nclass Tiny",
    ),
    (
        "    batch_size = 8",
        "    def __init__(self, act, config):\n        self.act, self.config = act, config\n\n    batch_size = 8",
    ),
    ("nn.ReLU()", "self.act()"),
    ("batch[0]), batch[1])", "batch[0]), batch[1], label_smoothing=self.config.smoothing)"),
    ("    Tiny(),", "    Tiny(nn.ReLU, Config(smoothing=0.0)),"),
)


@pytest.mark.parametrize(
    ("old", "new", "named"), [("nn.ReLU, ", "nn.Tanh, ", "act"), ("smoothing=0.0", "smoothing=0.3", "config")]
)
def test_other_arguments_are_another_workload(tuner, write, old, new, named):
    assert tuner("launch", write(replace=ARGUMENTS)).code == 0
    *rest, (tiny, made) = ARGUMENTS
    refused = tuner("launch", write(replace=(*rest, (tiny, made.replace(old, new))), trials=3))
    assert (refused.code, f"argument {named} changed" in refused.err) == (2, True)


def test_an_argument_that_cannot_be_told_apart_is_refused_before_anything_is_written(tuner, write, tmp_path):
    *rest, (tiny, made) = ARGUMENTS
    refused = tuner(
        "launch", write(replace=(*rest, (tiny, made.replace("nn.ReLU,", "__import__('threading').Lock(),"))))
    )
    assert refused.code == 2
    assert "Tiny was made with act, a _thread.lock" in refused.err
    assert "provenance()" in refused.err
    assert not list(tmp_path.glob("runs/checkpoints/*"))
    assert not (tmp_path / "runs" / "tuner.sqlite").exists() or rows(tmp_path, "select count(*) from study") == [(0,)]


LOADS = 'torch.load("stage1.pt", weights_only=True)'
PRETRAINED = ((f"return {MODEL}", f"model = {MODEL}\n        model.load_state_dict({LOADS})\n        return model"),)


def pretrained(tmp_path, shift):
    torch.manual_seed(0)
    from torch import nn

    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 2))
    torch.save({name: value + shift for name, value in model.state_dict().items()}, tmp_path / "stage1.pt")


def test_an_overwritten_file_of_initial_weights_is_noticed(tuner, write, tmp_path, caplog):
    pretrained(tmp_path, 0.0)
    assert tuner("launch", write(replace=PRETRAINED)).code == 0
    pretrained(tmp_path, 0.5)
    refused = tuner("launch", write(replace=PRETRAINED, trials=3))
    assert refused.code == 2
    assert "initial weights changed: at learning_rate=0.01" in refused.err
    assert "was a file that it loads overwritten?" in refused.err
    longer = tuner("launch", write(replace=PRETRAINED), "--round", 2, "--max-train-steps", 40)
    assert longer.code == 0
    assert "trial 0 inherits no 16 steps: they began from other initial weights" in caplog.text
    assert inherited(tuner, "tiny", 2)[0] == 0
    pretrained(tmp_path, 0.0)
    assert tuner("launch", write(replace=PRETRAINED, trials=3)).code == 0


LOSS = "return F.cross_entropy(model(batch[0]), batch[1]"
CONSTANT = "\n\nfrom pathlib import Path\n\nSCALE = float(Path('scale.txt').read_text())\n\n\nclass Tiny"


@pytest.mark.parametrize("scales", ["SCALE", "float(__import__('os').environ['SCALE'])"])
def test_what_a_loss_reads_besides_code_and_data_is_noticed(tuner, write, tmp_path, monkeypatch, caplog, scales):
    study = {"replace": (("\n\nclass Tiny", CONSTANT), (LOSS, LOSS.replace("return ", f"return {scales} * ")))}

    def scale(value):
        (tmp_path / "scale.txt").write_text(value)
        monkeypatch.setenv("SCALE", value)

    scale("1.0")
    assert tuner("launch", write(**study)).code == 0
    scale("2.0")
    refused = tuner("launch", write(**study, trials=3))
    assert (refused.code, "the loss changed: at learning_rate=0.01" in refused.err) == (2, True)
    replay = tuner("replay", write(**study), "--trial", 0)
    assert (replay.code, "the loss of a first batch changed" in replay.err) == (3, True)
    assert tuner("launch", write(**study), "--round", 2, "--max-train-steps", 40).code == 0
    assert inherited(tuner, "tiny", 2)[0] == 0
    assert "trial 0 inherits no 16 steps: they began from other initial weights, or with" in caplog.text
    scale("1.0")
    assert tuner("launch", write(**study, trials=3)).code == 0


UNSEEDED = (("        y = (x", "        x = x[torch.randperm(80)]\n        y = (x"),)
SHUFFLED = (("        y = (x", "        import random\n        x = x[random.sample(range(80), 80)]\n        y = (x"),)


@pytest.mark.parametrize("replace", [UNSEEDED, SHUFFLED])
@pytest.mark.parametrize("more", [(), ("--workers", 2)])
def test_data_that_are_others_at_each_call_are_refused_at_the_first_launch(tuner, write, tmp_path, replace, more):
    refused = tuner("launch", write(replace=replace), *more)
    assert refused.code == 2
    assert "Tiny.data() gives other data at each call: the training split" in refused.err
    assert "seed what data() draws from" in refused.err
    assert rows(tmp_path, "select count(*) from study") == [(0,)]


DRAWS = f"model = {MODEL}\n        model[0].bias.data += {{}}\n        return model"


def test_initial_weights_that_are_others_at_each_call_are_refused(tuner, write):
    draws = (f"return {MODEL}", DRAWS.format("torch.rand(16, generator=OWN)"))
    own = ("\n\nclass Tiny", "\nOWN = torch.Generator()\n\n\nclass Tiny")
    refused = tuner("launch", write(replace=(draws, own)))
    assert (refused.code, "gives other initial weights at each call" in refused.err) == (2, True)
    study = write(replace=((f"return {MODEL}", DRAWS.format("float(__import__('numpy').random.rand())")),))
    assert tuner("launch", study).code == 0
    assert "0 differ" in tuner("replay", study, "--trial", 0).out


DATASET = (
    ("class Tiny", "class Listed(torch.utils.data.Dataset):\n"
     "    def __init__(self, x, y):\n        self.x, self.y = x, y\n"
     "    def __len__(self):\n        return len(self.x)\n"
     "    def __getitem__(self, i):\n        return self.x[i], self.y[i]\n\n\nclass Tiny"),
    ("training=(x[:50], y[:50])", "training=Listed(x[:50], y[:50])"),
)  # fmt: skip


def test_a_relabelled_dataset_is_refused_and_named(tuner, write):
    assert tuner("launch", write(replace=DATASET)).code == 0
    refused = tuner(
        "launch", write(replace=(*DATASET, ("Listed(x[:50], y[:50])", "Listed(x[:50], 1 - y[:50])")), trials=3)
    )
    assert (refused.code, "training data changed" in refused.err) == (2, True)


def test_another_version_of_a_package_marks_and_shares_nothing_but_stops_nothing(tuner, write, tmp_path, monkeypatch):
    site = tmp_path / "site-packages"
    info = site / "somelib-1.dist-info"
    info.mkdir(parents=True)
    (site / "somelib.py").write_text("")
    (info / "RECORD").write_text("somelib.py,,\n")
    (info / "METADATA").write_text("Name: somelib\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(site))
    uses = (("from tuner import *", "from tuner import *\nimport somelib"),)
    assert tuner("launch", write(replace=uses)).code == 0
    (info / "METADATA").write_text("Name: somelib\nVersion: 1.1\n")
    from tuner.sources import places

    for known in (places._kind, places._distribution, places._owner):
        known.cache_clear()
    again = tuner("launch", write(replace=uses, trials=3))
    assert again.code == 0, again.err
    numerics = [
        json.loads(text)["packages"] for (text,) in rows(tmp_path, "select numerics from trial order by number")
    ]
    assert numerics == [{"somelib": "1.0"}] * 2 + [{"somelib": "1.1"}]
    assert tuner("launch", write(replace=uses, trials=3), "--round", 2, "--max-train-steps", 40).code == 0
    assert sum(bool(steps) for steps in inherited(tuner, "tiny", 2)) <= 1, "only what the new version trained"


def test_a_module_that_cannot_be_read_back_is_one_clear_error(tuner, write, tmp_path):
    gone = ("from tuner import *", "from tuner import *\nimport blocks, os\nos.remove(blocks.__file__)")
    refused = tuner("launch", write(replace=(gone,)))
    assert refused.code == 2
    assert "blocks.py belongs to the code of the study and cannot be read back" in refused.err


def test_the_test_split_is_compared_where_it_is_scored(tuner, write):
    test = ("validation=(x[50:], y[50:])", "validation=(x[50:], y[50:]), test=(x[60:], y[60:])")
    other = (test[0], test[1].replace("test=(x[60:], y[60:])", "test=(x[:20], y[:20])"))
    assert tuner("launch", write(replace=(test,))).code == 0
    refused = tuner("score-test", write(replace=(other,)))
    assert refused.code == 2
    assert "method Tiny.data changed; test data changed" in refused.err
    assert tuner("score-test", write(replace=(test,))).code == 0
