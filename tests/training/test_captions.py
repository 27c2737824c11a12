"""Captions in training: the same bits alone, in a group and resumed; and a look that sees what a model cannot."""

import pytest
import torch
from support.fusing import meaning, trained_alone, trained_together
from support.tiny import Tiny, setting_for, tiny_study
from torch import nn

from tuner import SearchSpace, Splits, branches, choice, dropped, fixed, integers, log_uniform, shuffled, uniform
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.caption_look import unseen_captions
from tuner.training.engine import Asked
from tuner.training.inspection import inspected
from tuner.training.trial_run import TrialRun

RATE = log_uniform(1e-3, 1e-1)
WORDS, LONGEST = 30, 6
ALL = {"shuffle_caption": uniform(0.1, 1), "caption_dropout": uniform(0.1, 0.5), "caption_tag_dropout": 0.2}


class Encoder(nn.Module):
    """A caption as one vector. how: "mean" is blind to the order, so is "added"; the others see it."""

    def __init__(self, how, width=8):
        super().__init__()
        self.how, self.embedding = how, nn.Embedding(WORDS, width, padding_idx=0)
        self.positions = nn.Parameter(torch.zeros(LONGEST, width))  # blind at first, and can learn to see
        self.recurrent = nn.GRU(width, width, batch_first=True) if how == "recurrent" else None
        layer = nn.TransformerEncoderLayer(width, 2, 16, batch_first=True)
        self.attention = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False) if how == "attention" else None

    def forward(self, words):
        there = (words > 0).unsqueeze(-1)
        vectors = self.embedding(words)
        if self.how in ("added", "attention"):
            vectors = vectors + self.positions
        if self.how == "positions":
            vectors = vectors * (1 + self.positions)
        if self.recurrent is not None:
            vectors = self.recurrent(vectors)[0]
        if self.attention is not None:
            vectors = self.attention(vectors, src_key_padding_mask=words == 0)
        return (vectors * there).sum(1) / there.sum(1).clamp(min=1)


class Classifier(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.encoder = None if how == "ignored" else Encoder(how)
        size = 6 if self.encoder is None else 14
        self.last = nn.Sequential(nn.Linear(size, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 2))

    def forward(self, x, words):
        parts = [x] if self.encoder is None else [x, self.encoder(words)]
        return self.last(torch.cat(parts, 1))


class Captioned(Tiny):
    """The two clouds of Tiny, with captions of 2 to 6 words, and noise that is drawn after them."""

    encoder = "positions"
    fewest = 2

    def data(self):
        splits, generator = super().data(), torch.Generator().manual_seed(1)
        words = torch.randint(1, WORDS, (80, LONGEST), generator=generator)
        lengths = torch.randint(self.fewest, max(self.fewest, LONGEST) + 1, (80,), generator=generator)
        words = words.masked_fill(torch.arange(LONGEST) >= lengths[:, None], 0)
        (x, y), (vx, vy) = splits.training, splits.validation
        return Splits(training=(x, y, words[:50]), validation=(vx, vy, words[50:]))

    def model(self, point):
        return Classifier(point.get("encoder", self.encoder) if point.get("captions", "yes") == "yes" else "ignored")

    def loss(self, model, batch, point):
        return super().loss(lambda x: model(x, batch[2]), batch, point)

    def metrics(self, model, batch):
        return super().metrics(lambda x: model(x, batch[2]), batch)

    def augment(self, batch, point, generator):
        x, y, words = batch
        words = self.changed(words, point, generator)
        return x + 0.1 * torch.randn(x.shape, generator=generator, device=generator.device), y, words

    def changed(self, words, point, generator):
        words = shuffled(words, generator, share=point.get("shuffle_caption", 0.0), keep=point.get("keep_tokens", 0))
        words = dropped(words, generator, share=point.get("caption_tag_dropout", 0.0), each=True)
        return dropped(words, generator, share=point.get("caption_dropout", 0.0))


def setting_of(workload, folder, space=ALL, **changes):
    study = tiny_study(space=SearchSpace(learning_rate=RATE, **space), **changes)
    return setting_for(study, folder, workload), planned_trials(study)


def test_captions_differ_between_epochs_and_are_the_same_for_a_seed_and_step(tmp_path):
    setting, (trial, other, _) = setting_of(Captioned(), tmp_path, {"shuffle_caption": 1.0})
    run, again, another = TrialRun(setting, trial), TrialRun(setting, trial), TrialRun(setting, other)

    def by_example(run, steps):
        """The captions of an epoch, by their words: each example once at most."""
        rows = [row for step in steps for row in run.batch_at(step)[2].tolist()]
        return {tuple(sorted(row)): row for row in rows}

    for step in (7, 3, 0):
        assert all(map(torch.equal, run.batch_at(step), again.batch_at(step))), "whatever was asked before"
    first, second = by_example(run, range(6)), by_example(run, range(6, 12))
    both = first.keys() & second.keys()
    assert len(both) > 30
    assert sum(first[words] != second[words] for words in both) > 0.8 * len(both)
    assert by_example(another, range(6)) != first


def test_a_sweep_leaves_captions_as_they_are(tmp_path):
    setting, (trial, *_) = setting_of(Captioned(), tmp_path, augment=False)
    run = TrialRun(setting, trial)
    assert all(map(torch.equal, run.batch_at(0), run.batches.at(0)))


def test_a_share_of_zero_has_the_bits_of_no_augmentation(tmp_path):
    class Unchanged(Captioned):
        def changed(self, words, point, generator):
            return words

    off = {"shuffle_caption": fixed(0.0), "caption_dropout": fixed(0.0), "caption_tag_dropout": fixed(0.0)}
    found = []
    for workload, space in ((Captioned(), off), (Unchanged(), off), (Captioned(), ALL)):
        setting, (trial, *_) = setting_of(workload, tmp_path, space)
        run = TrialRun(setting, trial)
        run.advance(10)
        found.append(([float(loss).hex() for loss in run.losses], run.evaluate()))
    assert found[0] == found[1], "the noise that is drawn after the captions, too"
    assert found[0] != found[2]


def test_a_trial_can_be_resumed_at_every_step(tmp_path):
    setting, (trial, *_) = setting_of(Captioned(), tmp_path)

    def results(run):
        run.advance(13)
        return [float(loss).hex() for loss in run.losses], run.evaluate()

    whole = results(TrialRun(setting, trial))
    for stop in range(1, 13):
        first, second = TrialRun(setting, trial), TrialRun(setting, trial)
        first.advance(stop)
        second.load(first.state())
        assert results(second) == whole, f"stopped at step {stop}"


def test_trials_with_shares_of_their_own_have_the_same_bits_together_and_alone(tmp_path):
    for train in (trained_together, trained_alone):
        setting, trials = setting_of(Captioned(), tmp_path / train.__name__, num_trials=4)
        recorder = train(setting, trials)
        assert {recorder.state(trial) for trial in trials} == {State.COMPLETE}
        found = [meaning(recorder, tmp_path / train.__name__, trial) for trial in trials]
        if train is trained_together:
            together = found
    assert together == found
    assert len({trial.point["shuffle_caption"] for trial in trials}) == 4


def told(workload, folder, space=ALL, **changes):
    return unseen_captions(*setting_of(workload, folder, space, **changes))


def encoded_by(how):
    return type("Other", (Captioned,), {"encoder": how})()


@pytest.mark.parametrize("how", ["mean", "added"])
def test_shuffling_for_an_encoder_that_is_blind_to_the_order_is_told(how, tmp_path):
    (sentence,) = told(encoded_by(how), tmp_path)
    assert sentence.startswith(
        "shuffle_caption changes nothing: the loss of a first batch and its gradient are the same"
    )


@pytest.mark.parametrize("how", ["positions", "recurrent", "attention"])
def test_an_encoder_that_sees_the_order_is_told_nothing(how, tmp_path):
    assert told(encoded_by(how), tmp_path) == []


class Quiet(Captioned):
    """Whatever the captions are, the first output is zero: the head begins at zero, as a gate or a LoRA's B does."""

    def model(self, point):
        model = super().model(point)
        nn.init.zeros_(model.last[-1].weight)
        return model


@pytest.mark.parametrize("how", ["positions", "recurrent", "attention"])
def test_an_encoder_behind_a_layer_that_begins_at_zero_is_told_nothing(how, tmp_path):
    assert told(type("Other", (Quiet,), {"encoder": how})(), tmp_path) == []


def test_dropout_hides_no_blindness(tmp_path):
    class WithoutPositions(Captioned):
        encoder = "attention"

        def model(self, point):
            model = super().model(point)
            model.encoder.positions = nn.Parameter(torch.zeros(LONGEST, 8), requires_grad=False)
            return model

    (sentence,) = told(WithoutPositions(), tmp_path)
    assert sentence.startswith("shuffle_caption changes nothing: ")


def test_each_change_of_captions_that_a_model_ignores_is_told(tmp_path):
    sentences = told(encoded_by("ignored"), tmp_path)
    assert {sentence.partition(" changes nothing: ")[0] for sentence in sentences} == set(ALL)
    assert sum("does the model read them?" in sentence for sentence in sentences) == 2


def test_a_branch_without_captions_and_shares_of_zero_are_told_nothing(tmp_path):
    blind = encoded_by("mean")
    space = {"captions": branches(yes=ALL, no={})}
    (sentence,) = told(blind, tmp_path, space)
    assert sentence.startswith("yes.shuffle_caption changes nothing: ")
    assert told(blind, tmp_path, {"captions": "no"}) == []
    assert told(blind, tmp_path, {"shuffle_caption": 0.0}) == []
    assert told(blind, tmp_path, augment=False) == []


def test_the_choices_are_named_with_which_it_is_so(tmp_path):
    space = {"encoder": choice("mean", "positions", "added"), "shuffle_caption": uniform(0, 1), "other": choice(1, 2)}
    (sentence,) = told(Captioned(), tmp_path, space, num_trials=12)
    assert sentence.startswith("shuffle_caption changes nothing with encoder = added or encoder = mean: ")


def test_captions_without_two_words_are_told(tmp_path):
    class Single(Captioned):
        fewest = LONGEST  # and all of them are kept

    (sentence,) = told(Single(), tmp_path, {"shuffle_caption": 0.5, "keep_tokens": LONGEST})
    assert sentence == "shuffle_caption changes nothing: no caption of a first batch has words that may change"


def test_a_call_is_named_where_the_study_has_a_name_of_its_own(tmp_path):
    class Own(Captioned):
        encoder = "mean"

        def changed(self, words, point, generator):
            return shuffled(words, generator, share=point["disorder"])

    (sentence,) = told(Own(), tmp_path, {"disorder": uniform(0.1, 0.9)})
    assert sentence.startswith("shuffled() in Own.augment changes nothing: ")


def test_lists_of_tags_are_looked_at_too(tmp_path):
    class Tags(Captioned):
        encoder = "mean"

        def changed(self, words, point, generator):
            tags = [[str(word) for word in row if word] for row in words.tolist()]
            tags = shuffled(tags, generator, share=point["shuffle_caption"])
            return torch.tensor([[*map(int, row), *[0] * (LONGEST - len(row))] for row in tags])

    (sentence,) = told(Tags(), tmp_path, {"shuffle_caption": 0.5})
    assert sentence.startswith("shuffle_caption changes nothing: ")


def test_the_first_look_tells_it_once_and_leaves_everything_as_it_was(tmp_path, caplog):
    setting, trials = setting_of(encoded_by("mean"), tmp_path)
    torch.manual_seed(5)
    before, known = torch.get_rng_state(), set()
    for _ in range(2):
        inspected(setting, trials, Asked(known=known))
    assert torch.equal(torch.get_rng_state(), before)
    assert sum("shuffle_caption changes nothing" in message for message in caplog.messages) == 1


def test_captions_that_cannot_be_shuffled_end_the_first_look(tmp_path):
    class Ragged(Captioned):
        def changed(self, words, point, generator):
            return shuffled([row[row > 0] for row in words], generator)

    setting, trials = setting_of(Ragged(), tmp_path)
    with pytest.raises(Exception, match=r"a list of tensors of .* words: make one tensor .* padded\("):
        inspected(setting, trials, Asked(known=set()))


def test_all_hyperparameters_of_captions_are_read(tmp_path):
    setting, trials = setting_of(
        Captioned(), tmp_path, {"captions": branches(yes=ALL | {"keep_tokens": integers(0, 2)}, no={})}
    )
    assert inspected(setting, trials, Asked(known=set())).unread == ()
