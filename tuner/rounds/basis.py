"""What a budget or a schedule is chosen under, and what changed since the one in use was chosen (A7, A16, A17)."""

from collections.abc import Iterator

from tuner.analysis.finding import Finding
from tuner.analysis.questions.stale_budget import FORMAT, stale_finding
from tuner.design.campaign import Campaign
from tuner.design.hyperparameters import Domain, Range
from tuner.design.space import SearchSpace
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.records.conclusions import BudgetRecord
from tuner.storage.store import Ledger

_FORMAT = "2"  # 1: data by their first examples, and nothing of other files
_FAMILIES = ("architecture", "augmentation", "regularization")  # their ranges and values decide how noisy training is


def basis_of(campaign: Campaign, loaded: LoadedWorkload, number: int) -> dict[str, str]:
    """Part to value, as declared today for round `number`: batch size, optimizer, schedule, families, code, data."""
    declared = {
        "batch_size": str(campaign.workload.batch_size),
        "optimizer": campaign.optimizer,
        "schedule": f"{campaign.schedule}, warmup {campaign.warmup_steps}",
    }
    space = next((one.space for one in reversed(campaign.rounds[:number]) if one.space is not None), None)
    return declared | dict(_hyperparameters(space)) | dict(loaded.parts) | {FORMAT: _FORMAT}


def stale_budget(
    ledger: Ledger, campaign_name: str, source: str | None, now: dict[str, str], subject: str
) -> Finding | None:
    """What changed since the study that a budget was chosen from was started."""
    known = {row.study.name: row.study_id for row in ledger.studies(campaign_name)} if source else {}
    if source is None or source not in known:
        return None
    kept = ledger.conclusion(campaign_name, BudgetRecord, known[source]) or BudgetRecord()
    return stale_finding(kept.basis, now, source, subject)


def _hyperparameters(space: SearchSpace | None) -> Iterator[tuple[str, str]]:
    if space is None:
        return
    for hyperparameter in space:
        if hyperparameter.family in _FAMILIES:
            yield f"{hyperparameter.family} {hyperparameter.name}", _words(hyperparameter.domain)
        elif hyperparameter.name == "optimizer":
            yield "optimizer choice", _words(hyperparameter.domain)
    for name, constant in space.fixed:
        if constant.family in _FAMILIES or name == "optimizer":
            yield f"{constant.family or 'optimizer'} {name}", repr(constant.value)


def _words(domain: Domain) -> str:
    if isinstance(domain, Range):
        return f"{domain.low:g} to {domain.high:g}"
    return ", ".join(map(repr, domain.choices))
