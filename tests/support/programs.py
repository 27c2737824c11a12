"""Programs that train, as files of their own: a logistic regression in plain Python, which starts in a moment."""

from tuner import Command, at_most, minimize

# The environment variables HERE and AFTER hold code that runs before each line is written, and at the end.
FIT = """
import argparse, json, math, os, random, signal, subprocess, sys, time
from pathlib import Path

parser = argparse.ArgumentParser()
for name, kind in dict(lr=float, steps=int, evaluate=str, seed=int, resume=Path, out=Path, rates=Path, metrics=Path,
                       off=int).items():
    parser.add_argument(f"--{name}", type=kind)
given = parser.parse_args()
due = [int(step) for step in given.evaluate.split(",")]
rates = json.loads(given.rates.read_text()) if given.rates else [given.lr] * given.steps
stream = given.metrics.open("a") if given.metrics else sys.stdout
source = random.Random(3)
rows = [[source.gauss(0, 1) for _ in range(6)] for _ in range(80)]
labels = [row[0] + 0.5 * row[1] > 0 for row in rows]


def say(**line):
    print(json.dumps({name.replace("__", "/"): value for name, value in line.items()}), file=stream, flush=True)


def probability(weights, row):
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, sum(w * x for w, x in zip(weights, row))))))


def loss(weights):
    wrong = [-math.log(max(1e-12, p if y else 1 - p)) for p, y in ((probability(weights, r), y) for r, y in
             zip(rows[50:], labels[50:]))]
    return sum(wrong) / len(wrong)


def error(weights):
    return sum((probability(weights, r) > 0.5) != y for r, y in zip(rows[:50], labels[:50])) / 50


begun, weights = 0, [random.Random(given.seed).gauss(0, 0.1) for _ in range(6)]
if given.resume and any(given.resume.iterdir()):
    state = json.loads(next(given.resume.iterdir()).read_text())
    begun, weights = state["step"], state["weights"]
for step in range(begun, given.steps):
    pick = random.Random(given.seed * 1000 + step)
    for row in (pick.randrange(50) for _ in range(8)):
        wrong = probability(weights, rows[row]) - labels[row]
        weights = [w - rates[step] * wrong * x / 8 for w, x in zip(weights, rows[row])]
    if step + 1 in due:
        line = {"step": step + 1, "validation__loss": loss(weights), "training__error_rate": error(weights)}
        if given.out:
            kept = given.out / f"step-{step + 1}.json"
            kept.write_text(json.dumps({"step": step + 1, "weights": weights}))
            line["checkpoint"] = str(kept)
        exec(os.environ.get("HERE", "pass"))
        say(**line)
exec(os.environ.get("AFTER", "pass"))
"""
RESUMED = "--resume {checkpoint} --out {folder}"
WORDS = "python fit.py --lr {learning_rate} --steps {max_train_steps} --evaluate {evaluation_steps} --seed {seed}"


def write_fit(folder):
    """The program, beside a study file that need not be there."""
    (folder / "fit.py").write_text(FIT)
    return folder / "study.py"


def fitting(more="--rates {rates} " + RESUMED, *, here="pass", after="pass", **changes):
    """The command; `here` runs before each line is written, `after` at the end of the program."""
    made = {"select_by": minimize("validation/loss"), "fitted_when": at_most("training/error_rate", 0.0)} | changes
    return Command(f"{WORDS} {more}", env={"HERE": here, "AFTER": after}, **made)
