"""The study of graphs.py with PyTorch Geometric: its Data, its Batch and its layers. Needs torch_geometric."""

from dataclasses import replace

import graphs
import torch
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GINConv, global_max_pool, global_mean_pool

from tuner import Splits


class AsData(torch.utils.data.Dataset):
    """The drawn graphs as Data objects."""

    def __init__(self, count, seed):
        self.graphs = [
            Data(x=nodes, edge_index=edges, y=torch.tensor([kind]))
            for nodes, edges, kind in graphs.DrawnGraphs(count, seed)
        ]

    def __len__(self):
        return len(self.graphs)

    def __getitem__(self, index):
        return self.graphs[index]


class Network(nn.Module):
    """Rounds of messages between neighbours, then a mean and a maximum over each graph."""

    def __init__(self, rounds, width=32):
        super().__init__()
        self.rounds = nn.ModuleList(
            GINConv(nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()))
            for inputs in (1, *[width] * (rounds - 1))
        )
        self.head = nn.Linear(2 * width, 3)

    def forward(self, batch):
        x = batch.x
        for one in self.rounds:
            x = one(x, batch.edge_index)
        pooled = [pool(x, batch.batch, batch.num_graphs) for pool in (global_mean_pool, global_max_pool)]
        return self.head(torch.cat(pooled, 1))


class GeometricKinds(graphs.Kinds):
    """The same graphs; a batch is a torch_geometric Batch, which moves itself and counts its graphs."""

    def data(self):
        return Splits(training=AsData(600, 0), validation=AsData(300, 1), test=AsData(300, 2))

    def collate(self, examples):
        return Batch.from_data_list(examples)

    def num_examples(self, batch):
        return batch.num_graphs

    def model(self, point):
        return Network(point["rounds"])

    def logits(self, model, batch):
        return model(batch), batch.y


campaign = replace(graphs.campaign, workload=GeometricKinds(), name="graphs_geometric")
