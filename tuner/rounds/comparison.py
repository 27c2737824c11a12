"""Whether a started study is the study that would be trained now, and what its budget was chosen under (A7, A16, A17).

An identity stands for code, arguments, data and initial weights. A basis is what a budget or a schedule was chosen
under, part by part.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tuner.analysis.finding import Finding
from tuner.analysis.questions.stale_budget import FORMAT, changed_parts, stale_finding
from tuner.design.campaign import Campaign
from tuner.design.hyperparameters import Domain, Range
from tuner.design.identity import (
    Identity,
    changed_losses,
    changed_packages,
    changed_weights,
    changes,
    identity_from,
    was_told,
)
from tuner.design.own_loop import OwnLoop
from tuner.design.space import SearchSpace
from tuner.design.study import Study
from tuner.errors import StudyChanged
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.records import Numerics
from tuner.records.conclusions import BudgetRecord
from tuner.rounds.plan import words_of_updates
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow

_FORMAT = "2"  # 1: data by their first examples, and nothing of other files
_FAMILIES = ("architecture", "augmentation", "regularization")  # their ranges and values decide how noisy training is


def basis_of(campaign: Campaign, loaded: LoadedWorkload, number: int) -> dict[str, str]:
    """Part to value, as declared today for round `number`: batch size, optimizer, schedule, families, code, data."""
    workload, own = campaign.workload, isinstance(campaign.workload, OwnLoop)
    declared = {"batch_size": str(workload.batch_size)} if workload.batch_size else {}
    declared |= {} if own else {"optimizer": str(campaign.optimizer)}
    words = words_of_updates(campaign)
    words.pop("slice_size", None)  # a campaign keeps it, whatever is computed at a time today
    declared |= {name: str(value) for name, value in words.items() if value not in ("", 0, 1)}
    if loaded.inherited is not None:
        declared["start"] = loaded.inherited.identity
    if not campaign.schedule_family.kind.unknown:
        declared["schedule"] = f"{campaign.schedule_family}, warmup {campaign.warmup_in_words}"
    before = [one for one in campaign.rounds[: number - 1] if one.start is None]
    space = next((one.space for one in reversed([*before, campaign.round(number)]) if one.space is not None), None)
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


_log = logging.getLogger(__name__)
_DECLARED = ("batch_size", "optimizer", "schedule", "architecture", "loss", "augmentation", "regularization")
_MOST_WORDS = 8  # changes that are named


@dataclass(frozen=True, slots=True)
class StudyComparison:
    """Compares the studies of a campaign, as the Ledger has them, with the workload of today."""

    name: str
    campaign: Campaign
    ledger: Ledger
    loaded: LoadedWorkload
    allow_changed_code: bool

    def today(self, study: Study, started: StudyRow | None) -> Identity:
        """The identity of a study as it would be trained now, compared with that of its start.

        At the first start in a campaign, raises WorkloadError where data() or model() give something else at each
        call; later StudyChanged for what is not as it was, unless that is allowed.
        """
        if started is None:
            today = self.loaded.identity_of(study)
            if not self._knows(today):
                self.loaded.check_repeatable(study, today)
            return today
        kept = None if started.identity is None else identity_from(started.identity)
        today = self.loaded.identity_of(study, [one.point for one in kept.weights] if kept else None)
        self.refuse_other(started, today)
        return today

    def begun_again(self, study: Study, started: StudyRow) -> Identity | None:
        """The identity of today, with which a study begins of which nothing is kept; None where it stays as it began.

        Its budget stays, and counts as chosen under what is declared today. Raises StudyChanged where another process
        has just let it begin with yet another identity.
        """
        today = self.loaded.identity_of(study)
        chosen = self.ledger.conclusion(self.name, BudgetRecord, started.study_id) or BudgetRecord()
        basis = replace(chosen, basis=basis_of(self.campaign, self.loaded, study.round or 1))
        study = replace(study, num_examples=self.loaded.num_examples)
        row = self.ledger.begin_again(started, study, today.fingerprint, today.as_json(), basis)
        if row.created == started.created:
            return None
        self.refuse_other(row, today)
        _log.warning(
            "the code or the data of the workload changed since %s was started, and none of its trials had trained "
            "anything that is kept: it begins with the code of today", started.study.name,
        )  # fmt: skip
        return today

    def refuse_other(self, row: StudyRow, today: Identity) -> None:
        """Raise StudyChanged where code, arguments, data or initial weights are not those of the start of a study."""
        if self.allow_changed_code:
            return
        if row.identity is None:
            if row.fingerprint not in (today.fingerprint, self.loaded.weaker_fingerprint()):
                raise _refusal(row, in_short(self._parts_known_then(row)))
            return
        kept = identity_from(row.identity)
        words = changes(kept, today)
        if words:
            told = in_short([*self._parts_known_then(row, _DECLARED), *words])
            raise _refusal(row, told + (_drawn_here(kept, today) if "data changed" in words[0] else ""))
        weights = changed_weights(kept, today, Numerics.alike)
        losses = changed_losses(kept, today, Numerics.alike)
        if self.loaded.trains_itself and (weights or losses):
            raise _other_steps(row, (weights or losses)[0].point)
        if weights:
            raise StudyChanged(
                f"initial weights changed: at {_point(weights[0].point)} model(point) starts from other weights than "
                f"when {row.study.name} of {row.campaign!r} was started, and code and data are the same; was a file "
                f"that it loads overwritten? {_WAYS_OUT}"
            )
        if losses:
            raise self._other_loss(row, losses[0].point)

    def _other_loss(self, row: StudyRow, point: Mapping[str, object]) -> StudyChanged:
        declared = self._parts_known_then(row, ("precision",))
        if declared:
            return _refusal(row, in_short(declared))
        return StudyChanged(
            f"the loss changed: at {_point(point)} a first batch has another loss than when {row.study.name} of "
            f"{row.campaign!r} was started, and code, data and initial weights are the same; did something change that "
            "loss or augment() reads besides them (a file, a variable of the environment, the weights of a teacher)? "
            f"{_WAYS_OUT}"
        )

    def is_as_started(self, row: StudyRow) -> bool:
        """Whether code, arguments, data and initial weights are those of the start of a study, whatever is allowed."""
        try:
            replace(self, allow_changed_code=False).today(row.study, row)
        except StudyChanged:
            return False
        return True

    def tell_what_follows(self, row: StudyRow, today: Identity) -> None:
        """Say what a weaker identity, or other versions of packages, mean for the trials that are left."""
        if is_weaker(row):
            _log.warning(
                "%s was started by tuner 0.1, which knew its study file and its data, and not what that imports, its "
                "arguments and its initial weights: other studies take over none of its steps, and its trials that go "
                "on from earlier steps are marked exact=false", row.study.name,
            )  # fmt: skip
        elif row.identity is not None:
            words = changed_packages(identity_from(row.identity).packages, today.packages)
            if words:
                _log.warning(
                    "since %s was started %s: its trials take over no steps that were trained before, and those that "
                    "go on from earlier steps are marked exact=false", row.study.name, "; ".join(words),
                )  # fmt: skip

    def _parts_known_then(self, row: StudyRow, kinds: Sequence[str] = ()) -> list[str]:
        """What differs of that under which the study's budget was chosen, in words; of some kinds of parts only."""
        kept = (self.ledger.conclusion(self.name, BudgetRecord, row.study_id) or BudgetRecord()).basis
        now = basis_of(self.campaign, self.loaded, row.study.round or 1) if kept else {}
        of_kinds = [
            {part: text for part, text in basis.items() if not kinds or part.split(" ")[0] in kinds}
            for basis in (kept, now)
        ]
        words = changed_parts(*of_kinds)
        return words.split("; ") if words else []

    def _knows(self, today: Identity) -> bool:
        """Whether a study of this campaign found the same data before: in another process they were the same, then."""
        if self.name not in self.ledger.campaigns():
            return False
        rows = (row for row in self.ledger.studies(self.name) if row.identity is not None)
        return any(identity_from(row.identity or {}).data == today.data for row in rows)


def is_weaker(row: StudyRow) -> bool:
    """Whether the recorded identity is weaker than today's, because tuner 0.1 started the study."""
    return row.identity is None and not row.study.source


_WAYS_OUT = (
    "Undo the change, give the campaign another name (its trials are then trained from their first step), or say "
    "--allow-changed-code if it makes no difference"
)


def _refusal(row: StudyRow, words: str) -> StudyChanged:
    if was_told(row.identity):
        return StudyChanged(
            f"the trials of {row.study.name} of {row.campaign!r} were asked for and told of by a script "
            "(tuner.asking), and trials that this program trains could not be compared with them: go on with the "
            "script, or give the campaign another name"
        )
    return StudyChanged(
        f"the code or the data of the workload changed since {row.study.name} of {row.campaign!r} was started"
        f"{f' ({words})' if words else ''}; its trials could not be compared with each other. {_WAYS_OUT}"
    )


def _drawn_here(was: Identity, now: Identity) -> str:
    """What is different here, where only data are, and the study was begun under other Numerics; else ""."""
    begun = next((Numerics.from_text(one.made_under) for one in was.weights if one.made_under), None)
    here = next((Numerics.from_text(one.made_under) for one in now.weights if one.made_under), None)
    different = here.differences(begun) if here and begun else ()
    if not different:
        return ""
    return (
        f"; this machine has other Numerics than the one that started it: {'; '.join(different)}. Data that torch "
        "draws (torch.randn) or computes differ with them: read them from a file, or draw them with NumPy"
    )


def _other_steps(row: StudyRow, point: Mapping[str, object]) -> StudyChanged:
    """Of a loop of one's own: all that is known of its data is what they give."""
    return StudyChanged(
        f"the loop changed: at {_point(point)} its first steps give another curve than when {row.study.name} of "
        f"{row.campaign!r} was started, and its code is the same; did something change that it reads (its data, a "
        f"file, a variable of the environment)? {_WAYS_OUT}"
    )


def in_short(words: Sequence[str]) -> str:
    """Changes in one line, the first of them where there are many."""
    more = len(words) - _MOST_WORDS
    return "; ".join([*words[:_MOST_WORDS], *([f"and {more} more"] if more > 0 else [])])


def _point(point: Mapping[str, object]) -> str:
    told = (f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in point.items())
    return ", ".join(told)
