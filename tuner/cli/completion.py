"""`tuner completion`, and what a shell offers for values: study files, campaigns, rounds, plots, verdicts.

Nothing heavy is imported before it is needed, because somebody waits for an offer. Whatever goes wrong
meanwhile is no offer, and no error on the line that somebody types.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

from tuner.cli.options import loaded
from tuner.cli.storage_options import CompletionOptions
from tuner.design.file_names import campaigns_named_in
from tuner.design.stages import is_study_file, split_stage

Given = Mapping[str, Any]  # the options and arguments that stand before the word that is completed
Offers = Callable[[Given, str], Iterable[str]]


# bash breaks words at colons, and one that is completed is replaced from its last colon on.
_BASH = r"""_tuner_completion() {
    local IFS=$'\n' words=() place=0 i before
    for ((i = 0; i < ${#COMP_WORDS[@]}; i++)); do
        if ((i > 0)) && [[ ${COMP_WORDS[i]} == :* || ${COMP_WORDS[i-1]} == *: ]]; then
            words[-1]+=${COMP_WORDS[i]}
        else
            words+=("${COMP_WORDS[i]}")
        fi
        ((i == COMP_CWORD)) && place=$((${#words[@]} - 1))
    done
    COMPREPLY=( $( env COMP_WORDS="${words[*]}" \
                   COMP_CWORD=$place \
                   _TUNER_COMPLETE=complete_bash $1 ) )
    before=${words[place]%"${words[place]##*:}"}
    if [[ -n $before && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"$before"}")
    fi
    return 0
}

complete -o default -F _tuner_completion tuner"""


def completion(options: CompletionOptions) -> None:
    """Print the script that a shell reads to complete commands, options and values of `tuner`."""
    if options.shell.value == "bash":
        print(_BASH)
        return
    script = loaded("typer.completion:get_completion_script")
    print(script(prog_name="tuner", complete_var="_TUNER_COMPLETE", shell=options.shell.value))


def offered(values: Offers) -> Offers:
    """The values that begin with what was typed; none where they cannot be had."""

    @wraps(values)
    def fitting(given: Given, incomplete: str) -> list[str]:
        with suppress(Exception):
            return [value for value in values(given, incomplete) if value.startswith(incomplete)]
        return []

    return fitting


@offered
def study_files(given: Given, incomplete: str) -> Iterable[str]:
    """Python files, folders on the way to them, and FILE:NAME behind a file with a colon."""
    file, name = split_stage(incomplete)
    if name or incomplete.endswith(".py:"):
        yield from (f"{file}:{one}" for _, one in campaigns_named_in(file))
        return
    for path in sorted(Path().glob(f"{incomplete}*")):
        if path.name.startswith((".", "_")):
            continue
        if path.is_dir():
            yield f"{path}/"
        elif path.suffix == ".py":
            yield str(path)


@offered
def studies(given: Given, incomplete: str) -> Iterable[str]:
    """Campaigns in the storage, then study files."""
    with suppress(Exception), _ledger(given) as ledger:
        yield from ledger.campaigns()
    yield from study_files(given, incomplete)


@offered
def rounds(given: Given, incomplete: str) -> Iterable[str]:
    """The rounds of the campaign that were launched."""
    with _ledger(given) as ledger:
        yield from map(str, loaded("tuner.analysis.round_frames:rounds_started")(ledger, _campaign(given)))


@offered
def declared_rounds(given: Given, incomplete: str) -> Iterable[str]:
    """The rounds that were launched, and the next one."""
    with suppress(Exception):
        started = [int(number) for number in rounds(given, "")]
        yield from map(str, started)
        yield str(max(started, default=0) + 1)


@offered
def studies_of_campaign(given: Given, incomplete: str) -> Iterable[str]:
    """All studies of the campaign: rounds, sweeps, contests."""
    with _ledger(given) as ledger:
        yield from (row.study.name for row in ledger.studies(_campaign(given)))


@offered
def trial_numbers(given: Given, incomplete: str) -> Iterable[str]:
    """The trials of the round, or of the study, that stands on the line; else of the last round."""
    with _ledger(given) as ledger:
        campaign = _campaign(given)
        number = given.get("round_number") or max(
            loaded("tuner.analysis.round_frames:rounds_started")(ledger, campaign)
        )
        row = ledger.study(campaign, given.get("study_name") or f"round-{number}")
        yield from (str(record.number) for record in ledger.trials(row.study_id))


@offered
def verdicts(given: Given, incomplete: str) -> Iterable[str]:
    """The words of verdicts, of which several may stand with commas between."""
    before, comma, _ = incomplete.rpartition(",")
    yield from (before + comma + word for word in ("none", *loaded("tuner.analysis.checklist:known_verdicts")()))


@offered
def plots(given: Given, incomplete: str) -> Iterable[str]:
    """The kinds of plots."""
    yield from loaded("tuner.plots.catalog:PLOTS").names


def _ledger(given: Given) -> Any:
    return loaded("tuner.cli.places:opened")(given.get("storage"), create=False)


def _campaign(given: Given) -> str:
    """The campaign that is meant, as far as the text of a file tells; the file is not run."""
    study = str(given.get("study") or "")
    if not is_study_file(study):
        return study
    file, asked = split_stage(study)
    known = campaigns_named_in(file)
    if asked:
        return next((name for variable, name in known if asked in (name, variable)), asked)
    return known[-1][1] if len(known) > 1 else file.stem
