"""Scalars written by torch's SummaryWriter, downloaded as TensorBoard's page does. In an environment of its own:

pip install 'torch==2.13.0' tensorboard; python make_tensorboard.py
A file is named as the page names it: run-RUN-tag-TAG.csv.
"""

import math
from pathlib import Path

from tensorboard.backend import application
from tensorboard.backend.event_processing import data_ingester
from tensorboard.context import RequestContext
from tensorboard.default import get_plugins
from tensorboard.program import TensorBoard
from torch.utils.tensorboard import SummaryWriter
from werkzeug.test import Client

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 10.0)
logs, folder = Path("tensorboard-logs"), Path("tensorboard")
folder.mkdir(exist_ok=True)
rows = ["run,learning_rate"]
for number, rate in enumerate(RATES):
    with SummaryWriter(logs / f"run{number}") as writer:
        for step in range(100, 2001, 100):
            loss = 0.1 + (math.log10(rate) + 2) ** 2 / 10 + math.exp(-step / 500)
            writer.add_scalar("Loss/val", math.nan if rate > 1 and step > 800 else loss, step, walltime=1e9 + step)
            writer.add_scalar("Loss/train", 0.9 * loss, step, walltime=1e9 + step)
    rows.append(f"run{number},{rate}")
(folder / "points.csv").write_text("\n".join(rows) + "\n")
board = TensorBoard(plugins=get_plugins())
board.configure(logdir=str(logs))
ingester = data_ingester.LocalDataIngester(board.flags)
ingester.start()
while len(ingester.data_provider.list_runs(RequestContext(), experiment_id="")) < len(RATES):
    pass
app = application.TensorBoardWSGIApp(board.flags, board.plugin_loaders, ingester.data_provider)
client = Client(app)
for number in range(len(RATES)):
    for tag in ("Loss/val", "Loss/train"):
        answer = client.get(f"/data/plugin/scalars/scalars?run=run{number}&tag={tag}&format=csv")
        assert answer.status_code == 200, answer
        (folder / f"run-run{number}-tag-{tag.replace('/', '_')}.csv").write_bytes(answer.data)
