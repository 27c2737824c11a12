"""Do two sentences say the same? Pairs of uneven length, padded batch by batch, judged by Matthews' correlation.

Sentences come from Python's own help pages. A third of the pairs are a sentence and its words in another order, one of
them left out; the others are a sentence and one in which some words were replaced. Does a wider encoder pay?
"""

import random
import re
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from sklearn.metrics import matthews_corrcoef
from torch import nn

from tuner import (
    Campaign,
    Round,
    SearchSpace,
    Splits,
    Sweep,
    Workload,
    at_most,
    choice,
    linear,
    log_uniform,
    maximize,
    padded,
)

WORDS, LONGEST, PADDING, OTHER = 1500, 40, 0, 1  # the vocabulary; words of a sentence; two words with a meaning
WIDTHS = (10, 16, 24, LONGEST)


def sentences():
    """Sentences of 5 to LONGEST words, as lists of words in lower case."""
    text = " ".join(topics[name] for name in sorted(topics)).lower()
    found = (re.findall(r"[a-z_]+", sentence) for sentence in re.split(r"[.:]\s", text))
    return [words for words in found if 5 <= len(words) <= LONGEST]


def made_pairs(count=2200):
    """Pairs of lists of word numbers with their labels, the same at every call."""
    draw, known = random.Random(0), sentences()
    counts = {}
    for word in (word for sentence in known for word in sentence):
        counts[word] = counts.get(word, 0) + 1
    common = sorted(counts, key=lambda word: (-counts[word], word))[: WORDS - 2]
    numbers = {word: number for number, word in enumerate(common, OTHER + 1)}
    pairs = []
    for sentence in draw.sample(known, count):
        first = [numbers.get(word, OTHER) for word in sentence]
        same, second = draw.random() < 1 / 3, list(first)
        if same:
            second.pop(draw.randrange(len(second)))
            draw.shuffle(second)
        else:
            for place in draw.sample(range(len(second)), max(2, len(second) // 5)):
                second[place] = draw.randrange(OTHER + 1, WORDS)
        pairs.append((first, second, int(same)))
    return pairs


class Pairs(torch.utils.data.Dataset):
    """Pairs of sentences as they are; `collate` pads them."""

    def __init__(self, pairs):
        self.pairs = [(torch.tensor(first), torch.tensor(second), label) for first, second, label in pairs]

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        return self.pairs[index]


class Encoder(nn.Module):
    """Means of learned word vectors, and a small net that compares two of them."""

    def __init__(self, width, dropout):
        super().__init__()
        self.words = nn.Embedding(WORDS, width, padding_idx=PADDING)
        self.compare = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 2))

    def meaning(self, words):
        present = (words != PADDING).unsqueeze(-1)
        return (self.words(words) * present).sum(1) / present.sum(1)

    def forward(self, first, second):
        one, other = self.meaning(first), self.meaning(second)
        return self.compare(torch.cat([(one - other).abs(), one * other], -1))


class Paraphrases(Workload):
    """1,500 pairs to train on, 350 each for validation and test."""

    batch_size = 32
    training_evaluation_examples = 500
    select_by = maximize("validation/mcc")
    fitted_when = at_most("training/error_rate", 0.0)
    not_averaged = ("predicted", "same")  # kept for split_metrics; a mean of them says nothing

    def data(self):
        pairs = made_pairs()
        return Splits(Pairs(pairs[:1500]), Pairs(pairs[1500:1850]), Pairs(pairs[1850:]))

    def lengths(self):  # a batch holds pairs of about one length, so that little is padded
        return [len(first) for first, _, _ in made_pairs()[:1500]]

    def collate(self, examples):  # to one of four widths: trials train as one model where batches have few shapes
        first, second, labels = zip(*examples, strict=True)
        words = padded([*first, *second], WIDTHS, PADDING)
        return {"first": words[: len(first)], "second": words[len(first) :], "labels": torch.tensor(labels)}

    def model(self, point):
        return Encoder(point["width"], point["dropout"])

    def loss(self, model, batch, point):
        return F.cross_entropy(model(batch["first"], batch["second"]), batch["labels"])

    def metrics(self, model, batch):
        logits, labels = model(batch["first"], batch["second"]), batch["labels"]
        predicted = logits.argmax(-1)
        return {
            "loss": F.cross_entropy(logits, labels, reduction="none"),
            "error_rate": predicted != labels,
            "predicted": predicted,
            "same": labels,
        }

    def split_metrics(self, each):  # of a whole split: a mean over batches would be another number
        return {"mcc": float(matthews_corrcoef(each["same"], each["predicted"]))}


campaign = Campaign(
    Paraphrases(),
    optimizer="adamw",
    schedule=linear(),
    warmup=0.06,
    evaluations=20,
    sweep=Sweep(learning_rate=(3e-3, 1e-2, 3e-2, 1e-1, 3e-1), start_steps=200, max_steps=1600, seeds=2),
    rounds=[
        Round("Does a wider encoder pay?", trials=12, scientific=("width",), space=SearchSpace(
            width=choice(16, 48),
            learning_rate=log_uniform(1e-3, 3e-1),
            weight_decay=log_uniform(1e-3, 1.0),
            dropout=0.1,
        )),
        Round("The final model", promote=2, fresh=2),
    ],
)  # fmt: skip
