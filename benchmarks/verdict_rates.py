"""Rates of right and wrong verdicts on synthetic studies: `python benchmarks/verdict_rates.py --studies 300`.

The seeds of `--tune` are for choosing statistics, the others for the tables
(docs/about/verdict-rates.md, README.md).
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(1, str(Path(__file__).parents[1] / "tests"))

from benchmarks.boundary_cases import KINDS, kind_case
from benchmarks.checklist_cases import QUESTIONS, Size, checklist_case
from benchmarks.synthetic import NOISES, BestStepCase, RegimeCase, best_step_case, boundary_case, regime_case
from tuner.analysis.finding import Finding
from tuner.analysis.questions.best_steps import best_steps_finding
from tuner.analysis.questions.boundary import boundary_findings
from tuner.analysis.questions.regime import regime_finding
from tuner.analysis.study_frames import StudyFrames

TABLE_SEED, TUNING_SEED = 1_000_000, 0


def boundary_rows(first_seed: int, studies: int, noises: tuple[float, ...], trials: tuple[int, ...]) -> pd.DataFrame:
    """One row a hyperparameter of each study: its truth and the verdict."""
    rows = []
    for noise in noises:
        for count in trials:
            for relevant in (1, 2, 3):
                for i in range(studies):
                    dims = relevant + i % (7 - relevant)
                    case = boundary_case(first_seed + i, trials=count, dims=dims, relevant=relevant, noise=noise)
                    for finding in boundary_findings(case.frames):
                        matters = int(finding.subject[1:]) < relevant
                        cell = (noise, count, relevant, dims, case.shape, case.divergent, matters)
                        rows.append((*cell, case.truth[finding.subject], finding.verdict))
    columns = ["noise", "trials", "relevant", "dims", "shape", "divergent", "matters", "truth", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def boundary_rates(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Percent: wrong_ok of those beyond an edge, false_alarm of those inside, inconclusive of all."""
    beyond, inside = rows["truth"] != "ok", rows["truth"] == "ok"
    undecided = rows["verdict"] == "inconclusive"
    expands = rows["verdict"].str.startswith("expand")
    rates = rows.assign(
        wrong_ok=(~undecided & (rows["verdict"] != rows["truth"])).where(beyond).astype(float),
        false_alarm=expands.where(inside).astype(float),
        inconclusive=undecided.astype(float),
        inconclusive_beyond=undecided.where(beyond).astype(float),
        inconclusive_inside=undecided.where(inside & rows["matters"]).astype(float),
        inconclusive_irrelevant=undecided.where(~rows["matters"]).astype(float),
    )
    columns = [str(c) for c in rates if str(c).startswith(("wrong", "false", "incon"))]
    return (100 * rates.groupby(by)[columns].mean()).round(1)


def kind_rows(first_seed: int, studies: int, kinds: Sequence[str]) -> pd.DataFrame:
    """One row a hyperparameter of each study of these kinds; named: whether its ridge was named, where it has one."""
    rows = []
    for kind in kinds:
        for seed in range(first_seed, first_seed + studies):
            case = kind_case(kind, seed)
            findings = {finding.subject: finding for finding in boundary_findings(case.frames)}
            for name, truth in case.truth.items():
                verdict = findings[name].verdict
                named = any("along a ridge" in caveat for caveat in findings[name].caveats)
                rows.append((kind, seed, name, truth, verdict, _outcome(verdict, truth), named, name in case.named))
    columns = ["kind", "seed", "hyperparameter", "truth", "verdict", "outcome", "named", "on_ridge"]
    return pd.DataFrame(rows, columns=columns)


def kind_rates(rows: pd.DataFrame) -> pd.DataFrame:
    """Percent of the verdicts of each kind that are wrong and undecided, with Wilson's 95 % intervals.

    Every hyperparameter counts, those that do not matter, too. ridge_named: of the hyperparameters on a ridge.
    """
    found = []
    for kind, mine in rows.groupby("kind", sort=False):
        ridge = mine[mine["on_ridge"]]
        found.append(
            {
                "kind": kind, "studies": mine["seed"].nunique(), "verdicts": len(mine),
                "wrong": _percent(mine["outcome"] == "wrong"), "undecided": _percent(mine["outcome"] == "open"),
                "ridge named": _percent(ridge["named"]) if len(ridge) else "",
            }
        )  # fmt: skip
    return pd.DataFrame(found)


def _percent(which: pd.Series) -> str:
    """The share in percent with Wilson's interval of 95 %."""
    interval = stats.binomtest(int(which.sum()), len(which)).proportion_ci(0.95, method="wilson")
    return f"{100 * which.mean():.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def best_step_rates(first_seed: int, studies: int, noises: tuple[float, ...]) -> pd.DataFrame:
    return _curve_rates(best_step_case, best_steps_finding, (first_seed, studies), noises)


def regime_rates(first_seed: int, studies: int, noises: tuple[float, ...]) -> pd.DataFrame:
    return _curve_rates(regime_case, regime_finding, (first_seed, studies), noises)


def checklist_rates(first_seed: int, studies: int, noises: tuple[float, ...], questions: list[str]) -> pd.DataFrame:
    """The other questions of the checklist: a row a study."""
    rows = []
    for question in questions:
        for size in _sizes(question, noises):
            for seed in range(first_seed, first_seed + studies):
                case = checklist_case(question, seed, size)
                verdict = QUESTIONS[question][1](case.frames).verdict
                cell = (question, size.noise, size.trials, size.evaluations, case.kind)
                rows.append((*cell, verdict, _outcome(verdict, case.truth), 1))
    columns = ["question", "noise", "trials", "evaluations", "kind", "verdict", "outcome", "count"]
    return pd.DataFrame(rows, columns=columns)


def _sizes(question: str, noises: tuple[float, ...]) -> list[Size]:
    """Few evaluations resolve no period; what rests on no curve is asked three times as often."""
    evaluations = {"instability": (50, 51, 52), "isolation": (50, 51, 52), "periodicity": (50, 100, 200)}
    return [
        Size(trials, count, noise)
        for noise in noises
        for trials in (10, 30, 100)
        for count in evaluations.get(question, (25, 50, 200))
    ]


def _curve_rates(
    make: Callable[..., BestStepCase | RegimeCase],
    ask: Callable[[StudyFrames], Finding],
    seeds: tuple[int, int],
    noises: tuple[float, ...],
) -> pd.DataFrame:
    """How often each verdict was given, for each kind of curve; `seeds`: the first one and how many."""
    rows = []
    for noise in noises:
        for trials in (10, 30):
            for evaluations in (25, 50, 200):
                verdicts: Counter[tuple[str, str, str]] = Counter()
                for seed in range(seeds[0], sum(seeds)):
                    case = make(seed, trials=trials, evaluations=evaluations, noise=noise)
                    verdict = ask(case.frames).verdict
                    verdicts[case.kind, _outcome(verdict, case.truth), verdict] += 1
                for (kind, outcome, verdict), count in verdicts.items():
                    rows.append(
                        {
                            "noise": noise, "trials": trials, "evaluations": evaluations, "kind": kind,
                            "outcome": outcome, "verdict": verdict, "count": count,
                        }
                    )  # fmt: skip
    return pd.DataFrame(rows)


def _outcome(verdict: str, truth: str) -> str:
    if verdict == truth:
        return "right"
    return "open" if verdict in ("inconclusive", "undecided", "tie") else "wrong"


def curve_table(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Percent of studies whose verdict was right, wrong, or open: inconclusive, undecided, or a tie."""
    counts = rows.pivot_table(index=by, columns="outcome", values="count", aggfunc="sum", fill_value=0)
    return (100 * counts.div(counts.sum(axis=1), axis=0)).round(1)


def _show(*tables: pd.DataFrame | pd.Series) -> None:
    for table in tables:
        sys.stdout.write(f"{table.to_string()}\n\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=300, help="studies in each cell")
    parser.add_argument("--tune", action="store_true", help="the seeds that statistics may be chosen by")
    parser.add_argument("--noise", type=float, nargs="*", default=list(NOISES))
    parser.add_argument("--trials", type=int, nargs="*", default=[20, 30, 50, 100])
    parser.add_argument("--only", choices=["boundaries", "boundary_kinds", "best_steps", "regime", *QUESTIONS])
    given = parser.parse_args()
    seed = TUNING_SEED if given.tune else TABLE_SEED
    if given.only in (None, "boundaries"):
        rows = boundary_rows(seed, given.studies, tuple(given.noise), tuple(given.trials))
        _show(boundary_rates(rows, ["noise", "trials", "relevant"]))
        _show(boundary_rates(rows, ["shape"]), boundary_rates(rows, ["divergent"]), boundary_rates(rows, ["dims"]))
    if given.only in (None, "boundary_kinds"):
        _show(kind_rates(kind_rows(seed, given.studies, list(KINDS))))
    for name, rates in (("best_steps", best_step_rates), ("regime", regime_rates)):
        if given.only in (None, name):
            counts = rates(seed, given.studies, tuple(given.noise))
            sys.stdout.write(f"{name}\n")
            _show(curve_table(counts, ["noise", "trials", "evaluations"]), curve_table(counts, ["kind"]))
            _show(counts[counts["outcome"] != "right"].groupby(["outcome", "kind", "verdict"])["count"].sum())
    asked = [question for question in QUESTIONS if given.only in (None, question)]
    if asked:
        counts = checklist_rates(seed, given.studies, tuple(given.noise), asked)
        _show(curve_table(counts, ["question", "trials"]), curve_table(counts, ["question", "noise"]))
        _show(curve_table(counts, ["question", "kind"]), counts.groupby("question").size())


if __name__ == "__main__":
    main()
