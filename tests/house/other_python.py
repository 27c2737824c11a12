"""Install the package under another Python and import it: `python tests/house/other_python.py python3.13 [--full]`.

Every module is compiled. Without torch, everything that reads records is imported, and the example report is written;
--full installs torch, too, and trains the smallest study.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
STUDY = """
import torch
from torch.nn.functional import mse_loss

from tuner import Campaign, Round, SearchSpace, Splits, Workload, log_uniform, minimize


class Line(Workload):
    batch_size = 8
    select_by = minimize("validation/loss")

    def data(self):
        x = torch.linspace(-1, 1, 64)[:, None]
        return Splits(training=(x, 3 * x), validation=(x, 3 * x))

    def model(self, point):
        return torch.nn.Linear(1, 1)

    def loss(self, model, batch, point):
        return mse_loss(model(batch[0]), batch[1])

    def metrics(self, model, batch):
        return {"loss": mse_loss(model(batch[0]), batch[1], reduction="none").mean(1)}


campaign = Campaign(
    Line(),
    optimizer="sgd",
    rounds=[Round("Which rate?", trials=2, max_train_steps=40, space=SearchSpace(learning_rate=log_uniform(0.01, 1)))],
)
"""


def main(interpreter: str, *options: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(interpreter, "-m", "venv", folder)
        python = f"{folder}/bin/python"
        if "--full" in options:
            run(python, "-m", "pip", "install", "-q", str(ROOT))
        else:
            run(python, "-m", "pip", "install", "-q", "-r", str(ROOT / "requirements-reader.txt"))
            run(python, "-m", "pip", "install", "-q", "--no-deps", str(ROOT))
        run(python, "-W", "error", "-m", "compileall", "-q", "-f", str(ROOT / "tuner"))
        run(python, "-c", "from tuner import *; import tuner.reading, tuner.report.page, tuner.interchange.optuna_in")
        run(python, "-m", "tuner", "demo", cwd=folder)
        if "--full" in options:
            (Path(folder) / "line.py").write_text(STUDY)
            run(python, "-m", "tuner", "launch", "line.py", "--round", "1", cwd=folder)
    sys.stdout.write(f"{interpreter}: installed and imported\n")


def run(*command: str, cwd: str | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main(*sys.argv[1:])
