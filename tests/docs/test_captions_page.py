"""The code of docs/how-to/captions.md, run as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import setting_for

from tuner.rounds.plan import planned_trials, study_of_round
from tuner.training.caption_look import unseen_captions
from tuner.training.trial_run import TrialRun

PAGE = (Path(__file__).parents[2] / "docs/how-to/captions.md").read_text(encoding="utf-8")
CODE = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture(scope="module")
def page():
    known: dict = {}
    exec(CODE, known)
    return known


def test_trials_with_and_without_captions_train(page, tmp_path):
    study = study_of_round(page["campaign"], 1, 200)
    trials = planned_trials(study)
    setting = setting_for(study, tmp_path, page["campaign"].workload)
    for value in ("yes", "no"):
        run = TrialRun(setting, next(trial for trial in trials if trial.point["captions"] == value))
        before = run.evaluate()["validation/loss"]
        run.advance(100)
        assert run.evaluate()["validation/loss"] < before
    assert unseen_captions(setting, trials) == []


def test_an_encoder_that_is_blind_is_told_what_the_page_shows(page, tmp_path):
    captioned: Any = page["Captioned"]

    class Blind(captioned):
        def model(self, point):
            model = super().model(point)
            if model.captions:
                model.places.requires_grad_(False).zero_()
            return model

    study = study_of_round(page["campaign"], 1, 200)
    (sentence,) = unseen_captions(setting_for(study, tmp_path, Blind()), planned_trials(study))
    assert sentence in " ".join(PAGE.split())


def test_tags_change_as_the_page_says(page):
    captions = ["a, b, c, d", "e", "f, g"] * 50
    point = {"shuffle_caption": 1.0, "caption_tag_dropout": 0.5}
    changed = page["changed"](captions, torch.Generator().manual_seed(0), point)
    assert [one[0] for one in changed] == [one[0] for one in captions]
    assert all(set(new.split(", ")) <= set(old.split(", ")) for new, old in zip(changed, captions, strict=True))
    assert len(set(changed[::3])) > 8
