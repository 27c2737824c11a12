"""The code of docs/how-to/ask-and-tell.md, run as it stands there."""

import re
from pathlib import Path

import tuner

PAGE = (Path(__file__).parents[2] / "docs/how-to/ask-and-tell.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_runs_and_its_study_is_judged(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNER_STORAGE", raising=False)
    page: dict = {}
    for block in BLOCKS:
        exec(block, page)
    first, second = (tuner.load("mine").frames(round=number).trials for number in (1, 2))
    assert first["state"].tolist() == ["complete"] * 12
    assert first["best_value"].min() < 1.0, "it learns: the loss of guessing among ten digits is 2.3"
    assert (second["state"] == "complete").sum() == 4
    assert "best steps of round-1" in capsys.readouterr().out
    assert page["swept"].sweep is not None
    told = tuner.Campaign(
        page["campaign"].workload, name="shapes", evaluations=2, rounds=page["campaign"].rounds,
    )  # fmt: skip
    with tuner.asking(told) as study:
        assert [study.tell(study.ask(), shape).value for shape in page["shapes"]] == ["complete"] * 4


def test_a_trial_has_all_that_the_page_names(tmp_path):
    rows = re.search(r"## What a trial says\n(.*?)\n## ", PAGE, re.DOTALL)
    assert rows is not None
    named = set(re.findall(r"`trial\.(\w+)", rows[1]))
    space = tuner.SearchSpace(learning_rate=tuner.log_uniform(1e-3, 1.0))
    campaign = tuner.Campaign(
        tuner.OwnLoop(select_by=tuner.minimize("validation/loss")),
        name="named",
        rounds=[tuner.Round("a test", trials=2, max_train_steps=20, space=space)],
    )
    with tuner.asking(campaign, storage=str(tmp_path / "named.sqlite")) as study:
        trial = study.ask()
        assert len(named) > 8
        assert [name for name in named if not hasattr(trial, name)] == []
