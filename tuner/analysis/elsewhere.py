"""Findings about an imported study: what its sample cannot show, and next steps that its owner can take.

The questions are those of every study. But a model may have chosen the points, some trials may have been pruned, and
there is no study file to edit and no checkpoint from which to continue.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from tuner.analysis.finding import NO_CURVES, Finding
from tuner.analysis.sampling import sample_of
from tuner.analysis.study_frames import StudyFrames
from tuner.design.hyperparameters import Hyperparameter, Range
from tuner.design.seeds import short_seed
from tuner.design.study import Study
from tuner.records import TrialRecord

_BETWEEN = "what lies between them is not seen"  # of a grid, or of points chosen by hand


def for_elsewhere(frames: StudyFrames, findings: Sequence[Finding]) -> list[Finding]:
    """Findings of an imported study with their caveats, no stronger than its sample allows; others unchanged."""
    if not frames.study.source:
        return list(findings)
    sample, pruned, total = sample_of(frames), len(frames.pruned), len(frames.trials)
    found = []
    for finding in findings:
        caveats = list(finding.caveats)
        asked = finding.asked
        uneven = sample.kind != "even" and bool(asked.uneven)
        if uneven and finding.verdict != "no_curves":
            missing = asked.uneven if sample.kind == "model" else _BETWEEN
            caveats.append(f"{sample.why}: {missing}.")
        known = any("pruned trials count as" in caveat for caveat in caveats)
        if pruned and not known and asked.pruned and finding.verdict != "no_curves":
            caveats.append(f"{pruned} of {total} trials were pruned: {asked.pruned}.")
        doubtful = asked.weakened and (uneven or pruned > 0) and not finding.needs_action
        strength = "moderate" if doubtful and finding.strength == "strong" else finding.strength
        action = _action(frames, finding)
        found.append(replace(finding, caveats=tuple(caveats), strength=strength, action=action))
    return found


def _action(frames: StudyFrames, finding: Finding) -> str:
    """The next step in the owner's own code; the original advice where it is possible there."""
    if finding.verdict == NO_CURVES.name and frames.stops_early:
        return "Train the trials to the end of the budget, without early stopping, then import them again."
    if finding.verdict == NO_CURVES.name:
        report = "trial.report(value, step)" if _is_optuna(frames) else "your logger"
        return f"Record the metric at regular steps, at least 20 times a trial, with {report} (B40, D14)."
    in_own_code = finding.asked.elsewhere
    return in_own_code(frames, finding) if in_own_code else finding.action


def more_trials(frames: StudyFrames) -> str:
    """How to train more trials that are spread evenly, in the tool that searched."""
    if _is_optuna(frames):
        return "study.sampler = optuna.samplers.QMCSampler(); study.optimize(objective, n_trials=20), then import again"
    return "about 20, by random or quasi-random search; then import again"


def _is_optuna(frames: StudyFrames) -> bool:
    return frames.study.source.startswith("Optuna")


def search_line(study: Study, hyperparameter: Hyperparameter, domain: Range) -> str:
    """In the syntax of the tool that an import names: Optuna, W&B or Ray; for another origin Optuna's, with its name.

    `domain`: the range to search.
    """
    source = study.source.lower()
    if source.startswith("optuna"):
        return f"paste `{optuna_line(hyperparameter, domain)}`"
    if "w&b" in source or "wandb" in source:
        return f"in the sweep's YAML: `{_wandb(hyperparameter, domain)}`"
    if re.search(r"\bray\b", source):
        return f"in the search space: `{_ray(hyperparameter, domain)}`"
    return f"in Optuna that is `{optuna_line(hyperparameter, domain)}`"


def optuna_line(hyperparameter: Hyperparameter, domain: Range) -> str:
    """`lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)`."""
    name = elsewhere(hyperparameter)
    kind, log = "int" if domain.integer else "float", ", log=True" if domain.log else ""
    variable = re.sub(r"\W", "_", name, flags=re.ASCII)
    variable = f"_{variable}" if variable[:1].isdigit() else variable
    bounds = ", ".join(number(bound, domain.integer) for bound in (domain.low, domain.high))
    return f"{variable} = trial.suggest_{kind}({_quoted(name)}, {bounds}{log})"


def again_elsewhere(study: Study, record: TrialRecord) -> str:
    """How to train a trial again that was trained elsewhere: for Optuna its call, for others the values as JSON.

    A script that asks for trials gets their seeds from here, and needs them again.
    """
    values = {}
    named = {hyperparameter.name: hyperparameter for hyperparameter in study.hyperparameters}
    for name, value in record.point.values_by_name:
        values[elsewhere(named[name]) if name in named else name] = value
    if not study.source:
        return f"{json.dumps(values)}  # seed {short_seed(record.seed)}, data_seed {short_seed(record.data_seed)}"
    if not study.source.startswith("Optuna"):
        return json.dumps(values)
    return f"study.enqueue_trial(study.trials[{record.number}].params)  # {json.dumps(values)}"


def elsewhere(hyperparameter: Hyperparameter) -> str:
    """The name that it has where it was searched: `sgd.lr`, which exists where optimizer = sgd, is lr there."""
    value = hyperparameter.condition[1] if hyperparameter.condition else None
    return hyperparameter.name.removeprefix(f"{value}.") if isinstance(value, str) else hyperparameter.name


def number(value: float, integer: bool = False, form: Callable[[str], str] = str) -> str:
    """As people write it: 32, 0.5, 1e-5."""
    if integer:
        return str(int(value))
    text = repr(float(f"{value:.6g}"))
    if "e" not in text and value != 0 and not 0.001 <= abs(value) < 100_000:
        mantissa, _, exponent = f"{value:.5e}".partition("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return form(re.sub(r"e([+-])0+(\d)", r"e\1\2", text))


def _wandb(hyperparameter: Hyperparameter, domain: Range) -> str:
    """YAML reads 1e-5 as a text; 1.0e-5 is a number."""
    name, kinds = elsewhere(hyperparameter), ("q_log_uniform_values", "int_uniform") if domain.integer else (
        "log_uniform_values", "uniform")  # fmt: skip
    low_text, high_text = (number(bound, domain.integer, _with_point) for bound in (domain.low, domain.high))
    return f"{name}: {{distribution: {kinds[0] if domain.log else kinds[1]}, min: {low_text}, max: {high_text}}}"


def _with_point(text: str) -> str:
    mantissa, mark, exponent = text.partition("e")
    return text if not mark else f"{mantissa if '.' in mantissa else f'{mantissa}.0'}e{exponent}"


def _ray(hyperparameter: Hyperparameter, domain: Range) -> str:
    """Ray's whole numbers end before their upper bound."""
    kind = ("lograndint" if domain.log else "randint") if domain.integer else "loguniform" if domain.log else "uniform"
    upper = domain.high + 1 if domain.integer else domain.high
    bounds = f"{number(domain.low, domain.integer)}, {number(upper, domain.integer)}"
    return f"{_quoted(elsewhere(hyperparameter))}: tune.{kind}({bounds})"


def _quoted(name: str) -> str:
    return f'"{name}"' if name.isprintable() and '"' not in name and "\\" not in name else ascii(name)
