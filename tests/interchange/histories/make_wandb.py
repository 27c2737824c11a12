"""Tables in the forms that Weights & Biases documents, made BY HAND: W&B itself wrote none of them.

history.csv: `run.history()` of each run, with a column `run` for its id, one below the other.
scan_history.csv: the rows of `run.scan_history()`, in which each `wandb.log` call is a row of its own.
panel.csv: "Export CSV" of a line chart of val_loss. runs.csv: "Export CSV" of the table of runs.
"""

import csv
import math
from pathlib import Path

RUNS = {
    "3fk2j9ab": ("proud-sea-1", 0.001, 0.1), "9x1zq0c4": ("misty-lake-2", 0.003, 0.0),
    "1e5k77aa": ("calm-wood-3", 0.01, 0.1), "b2b2b2b2": ("warm-fog-4", 0.03, 0.3),
    "00421337": ("dry-leaf-5", 0.1, 0.2), "zz9plural": ("loud-rain-6", 10.0, 0.0),
}  # fmt: skip
folder = Path("wandb")
folder.mkdir(exist_ok=True)


def loss(rate, step):
    if rate > 1 and step > 400:
        return "NaN"
    return 0.1 + (math.log10(rate) + 2) ** 2 / 10 + math.exp(-step / 250)


def write(name, rows, **options):
    with (folder / name).open("w", newline="") as file:
        csv.writer(file, lineterminator="\n", **options).writerows(rows)


history, scanned = [], []
for run, (_, rate, _dropout) in RUNS.items():
    for epoch in range(20):
        last = 50 * (epoch + 1)
        for place, step in enumerate((last - 25, last)):
            logged = 3 * epoch + place
            train = "NaN" if loss(rate, step) == "NaN" else 0.9 * loss(rate, step)
            row = (logged, 0.1 * step, 1.7e9 + 0.1 * step, epoch, step, train, "", run)
            history.append(row)
            scanned.append(row)
        row = (3 * epoch + 2, 0.1 * last, 1.7e9 + 0.1 * last, epoch, last, "", loss(rate, last), run)
        history.append(row)
        scanned.append(row)
heading = ["_step", "_runtime", "_timestamp", "epoch", "trainer/global_step", "train_loss", "val_loss", "run"]
write("history.csv", [heading, *history])
order = [7, 4, 6, 5, 0]
write("scan_history.csv", [[row[i] for i in order] for row in [heading, *scanned]])
names = [name for name, _, _ in RUNS.values()]
parts = ("_step", "_step__MIN", "_step__MAX", "val_loss", "val_loss__MIN", "val_loss__MAX")
rows = [["Step", *(f"{name} - {part}" for name in names for part in parts)]]
for step in range(50, 1001, 50):
    values = [loss(rate, step) for _, rate, _ in RUNS.values()]
    rows.append([step, *(cell for value in values for cell in (step, step, step, value, value, value))])
write("panel.csv", rows, quoting=csv.QUOTE_ALL)
table = [["Name", "State", "Notes", "User", "Tags", "Created", "Runtime", "Sweep", "dropout", "lr", "val_loss"]]
for name, rate, dropout in RUNS.values():
    made = ["2026-01-01T00:00:00.000Z", 100, "", dropout, rate, loss(rate, 1000)]
    table.append([name, "finished", "-", "somebody", "", *made])
write("runs.csv", table, quoting=csv.QUOTE_ALL)
configs = [["run", "state", "lr", "dropout"]]
configs += [[run, "finished", rate, dropout] for run, (_, rate, dropout) in RUNS.items()]
write("configs.csv", configs)
