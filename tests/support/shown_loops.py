"""Study files of loops of the user's own, as text, for tests of pages and commands."""

LOOP = """
import torch
import torch.nn.functional as F
from torch import nn
from tuner import *

generator = torch.Generator().manual_seed(0)
X = torch.randn(80, 6, generator=generator)
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).long()


class Mine(OwnLoop):
    select_by = minimize("validation/loss")
    fitted_when = at_most("training/error_rate", 0.0)
    {declared}

    def train(self, trial):
        torch.manual_seed(trial.seed)
        p = 0.0 if trial.regularization_off else trial.point["dropout"]
        model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(p), nn.Linear(16, 2)).to(trial.device)
        rate = trial.point.get("learning_rate", 0.05)
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        {keep}
        for step in trial.steps():
            {follow}
            model.train()
            rows = torch.randint(50, (8,))
            loss = F.cross_entropy(model(X[rows]), Y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if trial.evaluates(step):
                model.eval()
                with torch.no_grad():
                    found = {{"validation/loss": F.cross_entropy(model(X[50:]), Y[50:])}}
                    found["training/error_rate"] = (model(X[:50]).argmax(1) != Y[:50]).double().mean()
                    {report}
                trial.report(found)


campaign = Campaign(
    Mine(),
    rounds=[
        Round("Which rate?", trials={trials}, {length} space=SearchSpace({space})),
        Round("Is it still best?", promote=2, max_train_steps={longer}),
    ],
    evaluations=20,
    {more}
)
"""
KEEP = "trial.keep(model=model, optimizer=optimizer)"
KEEP_FILES = """def save(folder):
            torch.save(model.state_dict(), folder / "weights.pt")
            (folder / "deep").mkdir()
            torch.save(optimizer.state_dict(), folder / "deep" / "optimizer.pt")

        def load(folder):
            model.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
            optimizer.load_state_dict(torch.load(folder / "deep" / "optimizer.pt", weights_only=True))

        trial.keep_files(save, load)"""
FOLLOW = 'optimizer.param_groups[0]["lr"] = trial.rate(step)'
SPACE = "learning_rate=log_uniform(1e-3, 1e-1), dropout=uniform(0.0, 0.5)"
STANDARD = {
    "declared": "", "keep": KEEP, "follow": FOLLOW, "report": "pass", "trials": 4, "space": SPACE, "more": "",
    "length": "max_train_steps=60,", "longer": 120,
}  # fmt: skip


def loop_study(folder, name="mine", **changes):
    """Write the study file of a loop; returns its path."""
    path = folder / f"{name}.py"
    path.write_text(LOOP.format(**(STANDARD | changes)))
    return path
