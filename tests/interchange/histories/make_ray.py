"""Six trials by Ray Tune: progress.csv, result.json and params.json in a folder each. In an environment of its own:

pip install 'ray[tune]'; python make_ray.py
The machine's name and address in the files were replaced by `worker` and 127.0.0.1.
"""

import math
import re
import shutil
import socket
from pathlib import Path

import ray
from ray import tune


def train(config):
    for step in range(1, 21):
        loss = 0.1 + (math.log10(config["learning_rate"]) + 2) ** 2 / 10 + math.exp(-step / 5)
        if config["learning_rate"] > 1 and step > 8:
            loss = math.nan
        tune.report({"val_loss": loss, "train_loss": 0.9 * loss})


ray.init(num_cpus=1, include_dashboard=False)
space = {
    "learning_rate": tune.grid_search([0.001, 0.01, 10.0]),
    "model": {"hidden": 8, "act": tune.grid_search(["relu", None])},
}
results = Path("ray_results").resolve()  # Ray takes no relative path
tuner = tune.Tuner(train, param_space=space, run_config=tune.RunConfig(name="ray", storage_path=str(results)))
tuner.fit()
for folder in (results / "ray").iterdir():
    if not (folder / "progress.csv").is_file():
        continue
    kept = Path("ray") / f"train_{folder.name.split('_')[2]}"
    kept.mkdir(parents=True, exist_ok=True)
    for name in ("progress.csv", "result.json", "params.json"):
        text = (folder / name).read_text()
        text = re.sub(ray.util.get_node_ip_address().replace(".", r"\."), "127.0.0.1", text)
        (kept / name).write_text(re.sub(re.escape(socket.gethostname()), "worker", text))
shutil.rmtree(results)
