"""A trial goes on, and takes steps over, only from the weights that it would have started from itself."""

import json
from dataclasses import replace

import pytest
import torch
from support.tiny import MemoryRecorder, StopAt, Tiny, setting_for, tiny_study, train_alone
from torch import nn

from tuner import SearchSpace, choice, integers, log_uniform
from tuner.design.identity import Identity, InitialWeights, changed_losses, changed_weights
from tuner.errors import Infeasible, StudyChanged, WorkloadError
from tuner.records import Numerics
from tuner.records.numerics_record import ADDED
from tuner.rounds.plan import planned_trials
from tuner.sources.running import Seen
from tuner.training.first_look import MOST, NOT_BUILT, check_repeatable_weights, first_look, points_of_architectures
from tuner.training.trial_run import TrialRun


class Shifted(Tiny):
    """Starts from weights that a file might hold: those of the seed, all moved by `shift`."""

    def __init__(self, shift):
        self.shift = shift

    def model(self, point):
        model = super().model(point)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += self.shift
        return model


class Branched(Tiny):
    def model(self, point):
        if point["kind"] == "impossible":
            raise Infeasible("no such model")
        return nn.Sequential(nn.Linear(6, point["width"]), nn.Linear(point["width"], 2))


STUDY = tiny_study()
TRIAL = planned_trials(STUDY)[0]


def stopped(folder, recorder, **more):
    train_alone(setting_for(STUDY, folder, Shifted(0.0), stop=StopAt(10), **more), recorder, recorder.claim(TRIAL))


def test_a_trial_does_not_go_on_from_a_state_that_began_elsewhere(tmp_path):
    recorder = MemoryRecorder()
    stopped(tmp_path, recorder)
    with pytest.raises(StudyChanged, match="trial 0 of round-1 was begun from other initial weights"):
        train_alone(setting_for(STUDY, tmp_path, Shifted(0.5)), recorder, recorder.claim(TRIAL))
    train_alone(setting_for(STUDY, tmp_path, Shifted(0.0)), recorder, recorder.claim(TRIAL))
    assert recorder.updates[-1].step == 24
    assert recorder.updates[-1].numerics.exact


def test_a_trial_that_goes_on_with_other_code_is_marked(tmp_path):
    recorder = MemoryRecorder()
    stopped(tmp_path, recorder, fingerprint="code of then")
    train_alone(setting_for(STUDY, tmp_path, Shifted(0.0), fingerprint="code of now"), recorder, recorder.claim(TRIAL))
    assert not recorder.updates[-1].numerics.exact


def test_a_trial_that_goes_on_with_another_version_of_a_package_is_marked(tmp_path):
    recorder = MemoryRecorder()
    stopped(tmp_path, recorder, packages={"lib": "1"})
    train_alone(setting_for(STUDY, tmp_path, Shifted(0.0), packages={"lib": "2"}), recorder, recorder.claim(TRIAL))
    assert not recorder.updates[-1].numerics.exact


def test_a_state_without_a_digest_of_its_beginning_is_taken_as_it_is(tmp_path):
    run = TrialRun(setting_for(STUDY, tmp_path, Shifted(0.0)), TRIAL)
    run.advance(3)
    state = {name: value for name, value in run.state().items() if name != "initial"}
    other = TrialRun(setting_for(STUDY, tmp_path, Shifted(0.5)), TRIAL)
    other.note_initial()
    other.load(state)
    assert other.step == 3


def branched(**more):
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), width=integers(2, 10), unread=choice("x", "y"), **more)
    return tiny_study(space=space)


def test_each_architecture_is_looked_at_at_the_middle_of_the_ranges():
    points = points_of_architectures(branched(kind=choice("a", "b", "c")), Branched())
    assert [(point["kind"], point["width"]) for point in points] == [("a", 6), ("b", 6), ("c", 6)]
    assert len({point["unread"] for point in points}) == 1, "the model does not read it"
    assert len(points_of_architectures(branched(kind=choice(*range(50))), Branched())) == MOST


def test_a_model_that_rejects_a_point_is_no_error(tmp_path):
    study = branched(kind=choice("impossible", "b"))
    setting = setting_for(study, tmp_path, Branched())
    first, second = first_look(setting, points_of_architectures(study, Branched()), Seen())
    assert first.digest == NOT_BUILT
    assert len(second.digest) == 16


def test_weights_are_compared_point_by_point_and_on_one_kind_of_machine_only():
    was = InitialWeights({"width": 3, "kind": "a"}, "1", "torch 1")
    identity = Identity({}, {}, {}, weights=(was,))
    cases = [
        (was, False),
        (replace(was, digest="2"), True),
        (replace(was, digest="2", point={"kind": "a", "width": 3}), True),
        (replace(was, digest="2", point={"kind": "a", "width": 4}), False),
        (replace(was, digest="2", made_under="torch 2"), False),
    ]
    for now, differs in cases:
        assert bool(changed_weights(identity, replace(identity, weights=(now,)))) == differs


def test_what_an_earlier_version_noted_is_compared_too(tmp_path):
    (now,) = first_look(setting_for(STUDY, tmp_path), [dict(TRIAL.point)], Seen())

    def before(text, **changed):
        values = {name: value for name, value in json.loads(text).items() if name not in ADDED}
        return Numerics.of(values | changed).text

    then = replace(now, digest="other", made_under=before(now.made_under))
    lost = replace(now, loss="other", loss_under=before(now.loss_under))
    today = Identity({}, {}, {}, weights=(now,))
    for was, found in ((then, changed_weights), (lost, changed_losses)):
        assert found(replace(today, weights=(was,)), today, Numerics.alike) == [was]
        other = {"made_under": before(was.made_under, torch="1"), "loss_under": before(was.loss_under, torch="1")}
        elsewhere = replace(was, **other)
        assert found(replace(today, weights=(elsewhere,)), today, Numerics.alike) == []
    assert changed_weights(today, today, Numerics.alike) == changed_losses(today, today, Numerics.alike) == []


def test_a_look_leaves_the_generators_as_they_were(tmp_path):
    before = torch.get_rng_state()
    first_look(setting_for(STUDY, tmp_path), [dict(TRIAL.point)], Seen())
    assert torch.equal(before, torch.get_rng_state())


def test_weights_of_a_generator_without_a_seed_are_refused(tmp_path):
    own = torch.Generator()

    class Drawn(Tiny):
        def model(self, point):
            model = super().model(point)
            model[0].bias.data += torch.rand(12, generator=own)
            return model

    setting = setting_for(STUDY, tmp_path, Drawn())
    looked_at = first_look(setting, [dict(TRIAL.point)], Seen())
    with pytest.raises(WorkloadError, match="other initial weights at each call"):
        check_repeatable_weights(setting, looked_at)
