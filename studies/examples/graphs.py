"""Which process made this graph? One batch is one graph object: all nodes of its graphs, their edges, their owners.

Three kinds of random graphs of 16 to 32 nodes: edges at random, rings with shortcuts, and hubs that attract edges. Does
a third round of messages pay? `studies/examples/graphs_geometric.py` is the same study with PyTorch Geometric's Batch.
"""

import random
from dataclasses import dataclass

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
    choice,
    exponential,
    log_uniform,
    minimize,
)


@dataclass
class Graphs:
    """Some graphs as one: nodes [n, 1], edges [2, e] between them, the graph of each node [n], labels [graphs]."""

    nodes: torch.Tensor
    edges: torch.Tensor
    owners: torch.Tensor
    labels: torch.Tensor

    def to(self, device):
        parts = (self.nodes, self.edges, self.owners, self.labels)
        return Graphs(*(part.to(device) for part in parts))


def drawn_graph(draw):
    """The number of nodes, the edges as pairs, and the kind 0, 1 or 2; about two edges a node in each kind."""
    nodes, kind = draw.randint(16, 32), draw.randrange(3)
    if kind == 0:
        edges = {tuple(draw.sample(range(nodes), 2)) for _ in range(2 * nodes)}
    elif kind == 1:
        ring = [(node, (node + step) % nodes) for node in range(nodes) for step in (1, 2)]
        edges = {(one, draw.randrange(nodes)) if draw.random() < 0.2 else (one, other) for one, other in ring}
    else:
        edges, ends = set(), [0, 1]
        for node in range(2, nodes):
            chosen = {draw.choice(ends) for _ in range(2)}
            edges |= {(node, other) for other in chosen}
            ends += [node, *chosen]
    return nodes, sorted({(min(pair), max(pair)) for pair in edges if pair[0] != pair[1]}), kind


def graph_as_tensors(nodes, pairs):
    """Node features [nodes, 1], the number of neighbours, and edges [2, 2 * pairs] in both directions."""
    one_way = torch.tensor(pairs).T
    edges = torch.cat([one_way, one_way.flip(0)], 1)
    return torch.bincount(edges[0], minlength=nodes).float().unsqueeze(1) / 4, edges


class DrawnGraphs(torch.utils.data.Dataset):
    """Graphs as tuples of nodes, edges and label."""

    def __init__(self, count, seed):
        draw = random.Random(seed)
        drawn = [drawn_graph(draw) for _ in range(count)]
        self.examples = [(*graph_as_tensors(nodes, pairs), kind) for nodes, pairs, kind in drawn]

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]


class Messages(nn.Module):
    """Rounds of messages between neighbours (GIN), then a mean and a maximum over each graph."""

    def __init__(self, rounds, width=32):
        super().__init__()
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
            for inputs in (1, *[width] * (rounds - 1))
        )
        self.head = nn.Linear(2 * width, 3)

    def forward(self, nodes, edges, owners, graphs):
        x = nodes
        for net in self.nets:
            x = net(x.index_add(0, edges[1], x[edges[0]]))
        sums = x.new_zeros(graphs, x.shape[1]).index_add(0, owners, x)
        sizes = torch.bincount(owners, minlength=graphs).unsqueeze(1)
        largest = x.new_zeros(graphs, x.shape[1]).scatter_reduce(0, owners.unsqueeze(1).expand_as(x), x, "amax")
        return self.head(torch.cat([sums / sizes, largest], 1))


class Kinds(Workload):
    """600 graphs to train on, 300 each for validation and test."""

    batch_size = 32
    select_by = minimize("validation/loss", worth=0.01)
    fitted_when = at_most("training/error_rate", 0.08)

    def data(self):
        return Splits(training=DrawnGraphs(600, 0), validation=DrawnGraphs(300, 1), test=DrawnGraphs(300, 2))

    def collate(self, examples):
        nodes, edges, labels = zip(*examples, strict=True)
        sizes = torch.tensor([len(each) for each in nodes])
        starts = sizes.cumsum(0) - sizes
        moved = [each + start for each, start in zip(edges, starts, strict=True)]
        owners = torch.arange(len(sizes)).repeat_interleave(sizes)
        return Graphs(torch.cat(nodes), torch.cat(moved, 1), owners, torch.tensor(labels))

    def num_examples(self, batch):
        return len(batch.labels)

    def model(self, point):
        return Messages(point["rounds"])

    def logits(self, model, batch):
        return model(batch.nodes, batch.edges, batch.owners, len(batch.labels)), batch.labels

    def loss(self, model, batch, point):
        return F.cross_entropy(*self.logits(model, batch))

    def metrics(self, model, batch):
        logits, labels = self.logits(model, batch)
        return {"loss": F.cross_entropy(logits, labels, reduction="none"), "error_rate": logits.argmax(-1) != labels}


campaign = Campaign(
    Kinds(),
    optimizer="nadam",
    schedule=exponential(final=0.01),
    evaluations=20,
    sweep=Sweep(learning_rate=(1e-3, 3e-3, 1e-2, 3e-2), start_steps=100, max_steps=1600, seeds=2),
    rounds=[
        Round("Does a third round of messages pay?", trials=10, scientific=("rounds",), space=SearchSpace(
            rounds=choice(2, 3),
            learning_rate=log_uniform(1e-3, 3e-2),
        )),
        Round("The final model", promote=2, fresh=2),
    ],
)  # fmt: skip
