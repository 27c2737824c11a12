"""Will this person click on this film? Sparse embeddings trained with Adagrad, judged by the area under the ROC curve.

The clicks are made: people and films have hidden tastes. A step touches a few rows of large tables, so gradients are
sparse. How many dimensions should the tastes have? More steps go on to help for long: the length is declared.
"""

import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import nn

from tuner import Campaign, Round, SearchSpace, Splits, Workload, choice, constant, log_uniform, maximize

PEOPLE, FILMS, TASTES = 500, 300, 2


def clicks(count=40_000):
    """People [count], films [count] and whether each clicked [count], about one in five."""
    draw = torch.Generator().manual_seed(0)
    likes, shows = torch.randn(PEOPLE, TASTES, generator=draw), torch.randn(FILMS, TASTES, generator=draw)
    popular = 0.7 * torch.randn(FILMS, generator=draw)
    people = torch.randint(PEOPLE, (count,), generator=draw)
    films = torch.randint(FILMS, (count,), generator=draw)
    likely = torch.sigmoid(1.5 * (likes[people] * shows[films]).sum(1) + popular[films] - 2)
    return people, films, (torch.rand(count, generator=draw) < likely).float()


class Tastes(nn.Module):
    """Logits [n] of clicks: a person's tastes times the film's, and how popular the film is."""

    def __init__(self, size):
        super().__init__()
        self.people, self.films = (nn.Embedding(rows, size, sparse=True) for rows in (PEOPLE, FILMS))
        self.popular = nn.Embedding(FILMS, 1, sparse=True)
        for embedding in (self.people, self.films):
            nn.init.normal_(embedding.weight, std=0.1)
        nn.init.constant_(self.popular.weight, -1.5)

    def forward(self, people, films):
        return (self.people(people) * self.films(films)).sum(1) + self.popular(films).squeeze(1)


class Clicks(Workload):
    """30,000 impressions to train on, 5,000 each for validation and test."""

    batch_size = 128
    training_evaluation_examples = 5000
    select_by = maximize("validation/auc", worth=0.002)
    not_averaged = ("score", "clicked")

    def data(self):
        data = clicks()
        return Splits(*(tuple(each[part] for each in data) for part in (
            slice(0, 30_000), slice(30_000, 35_000), slice(35_000, 40_000)
        )))  # fmt: skip

    def model(self, point):
        return Tastes(point["dimensions"])

    def loss(self, model, batch, point):
        people, films, clicked = batch
        return F.binary_cross_entropy_with_logits(model(people, films), clicked)

    def metrics(self, model, batch):
        people, films, clicked = batch
        logits = model(people, films)
        losses = F.binary_cross_entropy_with_logits(logits, clicked, reduction="none")
        return {"loss": losses, "score": logits, "clicked": clicked}

    def split_metrics(self, each):
        return {"auc": float(roc_auc_score(each["clicked"], each["score"]))}


campaign = Campaign(
    Clicks(),
    optimizer="adagrad",
    schedule=constant(),
    evaluations=20,
    production_steps=4000,
    rounds=[
        Round("How many dimensions?", trials=10, max_train_steps=1500, scientific=("dimensions",), space=SearchSpace(
            dimensions=choice(4, 16),
            learning_rate=log_uniform(0.01, 1.0),
        )),
        Round("The final model", promote=2, fresh=2),
    ],
)  # fmt: skip
