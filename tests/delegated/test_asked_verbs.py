"""What the commands say of a study whose trials a script asked for and told of."""

import json

import tuner as api

STUDY_FILE = """
from tuner import *
space = SearchSpace(learning_rate=log_uniform(1e-2, 1.0))
campaign = Campaign(OwnLoop(select_by=minimize("validation/loss")), evaluations=4,
    rounds=[Round("a test", trials=3, max_train_steps=20, space=space)])
"""


def test_no_page_and_no_command_offers_weights_or_a_replay_of_what_was_told(tuner, tmp_path):
    (tmp_path / "elsewhere.py").write_text(STUDY_FILE)
    with api.asking("elsewhere.py") as study:
        seeds = {
            trial.number: (trial.seed, study.tell(trial, {step: 1 / step for step in trial.evaluation_steps}))[0]
            for trial in study
        }
    best = tuner("best", "elsewhere", "--export", "model.safetensors")
    assert (best.code, list(tmp_path.glob("model*"))) == (2, [])
    assert "was trained elsewhere (by a script that asks, tuner.asking), so its weights are there" in best.err
    again = f"seed {seeds[api.load('elsewhere').best().record.number]}, data_seed "
    assert again in best.out
    assert json.loads(tuner("best", "elsewhere", "--format", "json").out)["seed"] in seeds.values()
    scored = tuner("score-test", "elsewhere.py")
    assert (scored.code, "score the weights, which are where it was trained" in scored.err) == (2, True)
    tuner("report", "elsewhere", "-o", "page.html")
    page = (tmp_path / "page.html").read_text()
    assert again in page
    for text in (best.out, best.err, scored.err, page):
        assert "tuner replay" not in text
        assert "--export" not in text
