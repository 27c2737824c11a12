"""Handwritten digits with Accelerate, in the form of its example for computer vision."""

import argparse

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, Dataset


class DigitsDataset(Dataset):
    """1,797 images [1, 8, 8] from 0 to 1 with their labels; the first 1,400 are to train on."""

    def __init__(self, rows):
        x, y = load_digits(return_X_y=True)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[rows]
        self.images, self.labels = torch.tensor(x / 16, dtype=torch.float32).view(-1, 1, 8, 8)[order], y[order]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"image": self.images[index], "label": int(self.labels[index])}


def create_model():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip


def training_function(config, args):
    accelerator = Accelerator(cpu=args.cpu, mixed_precision=args.mixed_precision)
    set_seed(config["seed"])

    train_dataset, eval_dataset = DigitsDataset(slice(0, 1400)), DigitsDataset(slice(1400, None))
    train_dataloader = DataLoader(train_dataset, shuffle=True, batch_size=config["batch_size"])
    eval_dataloader = DataLoader(eval_dataset, shuffle=False, batch_size=config["batch_size"])

    model = create_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=config["lr"])
    steps = config["num_epochs"] * len(train_dataloader)
    lr_scheduler = OneCycleLR(optimizer, max_lr=config["lr"], total_steps=steps)
    model, optimizer, train_dataloader, eval_dataloader, lr_scheduler = accelerator.prepare(
        model, optimizer, train_dataloader, eval_dataloader, lr_scheduler
    )

    for epoch in range(config["num_epochs"]):
        train(accelerator, model, train_dataloader, optimizer, lr_scheduler)
        metrics = evaluate(accelerator, model, eval_dataloader)
        accelerator.print(f"epoch {epoch}:", {name: round(value, 4) for name, value in metrics.items()})


def train(accelerator, model, train_dataloader, optimizer, lr_scheduler):
    model.train()
    for batch in train_dataloader:
        outputs = model(batch["image"])
        loss = F.cross_entropy(outputs, batch["label"])
        accelerator.backward(loss)
        optimizer.step()
        lr_scheduler.step()
        optimizer.zero_grad()


def evaluate(accelerator, model, eval_dataloader):
    model.eval()
    accurate, losses = [], []
    for batch in eval_dataloader:
        with torch.no_grad():
            outputs = model(batch["image"])
        outputs, labels = accelerator.gather_for_metrics((outputs, batch["label"]))
        accurate.append(outputs.argmax(dim=-1) == labels)
        losses.append(F.cross_entropy(outputs, labels, reduction="none"))
    return {"accuracy": torch.cat(accurate).float().mean().item(), "loss": torch.cat(losses).mean().item()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mixed_precision", default="no", choices=["no", "fp16", "bf16"])
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args()
    config = {"lr": 3e-3, "num_epochs": 8, "seed": 42, "batch_size": 64}
    training_function(config, args)


if __name__ == "__main__":
    main()
