"""Letters from frames of sound, by connectionist temporal classification (CTC), judged by the word error rate.

The 'speech' is made: each letter is two to five noisy frames of its own sound, a space is a pause. Hypotheses have any
number of letters, so they are ragged; the word error rate is all edits over all words, no mean over sentences.
"""

import random

import torch
import torch.nn.functional as F
from torch import nn

from tuner import (
    Campaign,
    Round,
    SearchSpace,
    Splits,
    Sweep,
    Workload,
    at_most,
    inverse_sqrt,
    log_uniform,
    minimize,
    padded,
)

LETTERS, SPACE, BLANK = "abcdefghij", 11, 0  # a letter is 1 to 10
FEATURES, WIDTHS = 12, (32, 48, 72, 128)  # of a frame; frames to which utterances are padded
WORDS = "bad bag bead beach cab cafe chad chief dab deaf dice each edge fab face fade fee gab gift hid ice jab jade jig"


class Utterances(torch.utils.data.Dataset):
    """Frames [time, FEATURES] and the letters that were said [letters]."""

    def __init__(self, count, seed, noise=0.5):
        sounds = torch.randn(SPACE + 1, FEATURES, generator=torch.Generator().manual_seed(99))
        sounds[SPACE] = 0.0
        draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
        self.examples = []
        for _ in range(count):
            words = [[c for c in word if c in LETTERS] for word in draw.choices(WORDS.split(), k=draw.randint(1, 4))]
            said = [SPACE]
            for word in words:
                said += [*(1 + LETTERS.index(letter) for letter in word), SPACE]
            held = torch.tensor([number for number in said for _ in range(draw.randint(2, 5))])
            frames = sounds[held] + noise * torch.randn(len(held), FEATURES, generator=generator)
            self.examples.append((frames, torch.tensor(said[1:-1])))

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]


class Listener(nn.Module):
    """Convolutions over time; logits [n, time, letters] at every frame."""

    def __init__(self, width=64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(FEATURES, width, 5, padding=2), nn.ReLU(), nn.Conv1d(width, width, 5, padding=2), nn.ReLU(),
            nn.Conv1d(width, SPACE + 1, 1),
        )  # fmt: skip

    def forward(self, frames):
        return self.layers(frames.transpose(1, 2)).transpose(1, 2)


def edits(one, other):
    """The smallest number of insertions, deletions and substitutions between two sequences (Levenshtein)."""
    row = list(range(len(other) + 1))
    for count, mine in enumerate(one, 1):
        last, row[0] = row[0], count
        for place, yours in enumerate(other, 1):
            last, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, last + (mine != yours))
    return row[-1]


def words_of(letters):
    """The words of a sequence of letter numbers, as tuples."""
    text = "".join(" " if number == SPACE else LETTERS[number - 1] for number in letters)
    return text.split()


class Speech(Workload):
    """500 utterances to train on, 200 each for validation and test."""

    batch_size = 16
    evaluation_batch_size = 100
    select_by = minimize("validation/wer", worth=0.01)
    fitted_when = at_most("training/letter_error_rate", 0.02)
    not_averaged = ("heard", "said")

    def data(self):
        return Splits(training=Utterances(500, 0), validation=Utterances(200, 1), test=Utterances(200, 2))

    def lengths(self):
        return [len(frames) for frames, _ in Utterances(500, 0).examples]

    def collate(self, examples):
        frames, said = zip(*examples, strict=True)
        return {
            "frames": padded(frames, WIDTHS),
            "times": torch.tensor([len(each) for each in frames]),
            "said": padded(said, value=BLANK),
            "letters": torch.tensor([len(each) for each in said]),
        }

    def num_examples(self, batch):
        return len(batch["times"])

    def model(self, point):
        return Listener()

    def nats(self, logits, batch):
        """Nats of each utterance [n]."""
        likely = logits.log_softmax(-1).transpose(0, 1)
        return F.ctc_loss(likely, batch["said"], batch["times"], batch["letters"], blank=BLANK, reduction="none")

    def loss(self, model, batch, point):
        return self.nats(model(batch["frames"]), batch).sum() / batch["letters"].sum()

    def metrics(self, model, batch):
        logits = model(batch["frames"])
        best = logits.argmax(-1)
        heard = [each[:time].unique_consecutive() for each, time in zip(best, batch["times"], strict=True)]
        said = [each[:letters] for each, letters in zip(batch["said"], batch["letters"], strict=True)]
        heard = [each[each != BLANK] for each in heard]
        return {"loss": self.nats(logits, batch) / batch["letters"], "heard": heard, "said": said}

    def split_metrics(self, each):
        pairs = [(said.tolist(), heard.tolist()) for said, heard in zip(each["said"], each["heard"], strict=True)]
        letters = sum(edits(said, heard) for said, heard in pairs) / sum(len(said) for said, _ in pairs)
        words = [(words_of(said), words_of(heard)) for said, heard in pairs]
        wrong = sum(edits(said, heard) for said, heard in words) / sum(len(said) for said, _ in words)
        return {"letter_error_rate": letters, "wer": wrong}


campaign = Campaign(
    Speech(),
    optimizer="radam",
    schedule=inverse_sqrt(),
    evaluations=20,
    sweep=Sweep(learning_rate=(3e-3, 1e-2, 3e-2, 1e-1), start_steps=200, max_steps=1600, seeds=2),
    rounds=[
        Round("Which rate and weight decay?", trials=10, space=SearchSpace(
            learning_rate=log_uniform(3e-3, 1e-1),
            weight_decay=log_uniform(1e-6, 1e-2),
        )),
        Round("The final model", promote=2, fresh=2),
    ],
)  # fmt: skip
