"""Commands that are killed again and again while they train, and what they have recorded when they are over."""

import random
import signal

from support.patience import wait_for
from support.processes import told
from tuner.storage.store import open_ledger

DONE = (0, 3)  # exit codes of a run; the second one where nothing could be concluded


def killed_after(process, more, moves):
    """Kill a run once `moves()` has grown by so much; whether it was still at work."""
    begun = moves()
    wait_for(lambda: moves() - begun >= more or process.poll() is not None, moves=moves)
    process.kill()
    code, said = told(process)
    assert code in (*DONE, -signal.SIGKILL), said
    return code == -signal.SIGKILL


def killed(begin, count, kills, draws, seed=1):
    """Begin a run, and kill it so many times at some growth of the file `count`; then let it come to its end.

    begin: starts the command. draws: the least growth before a kill, and what it is less than.
    """
    source = random.Random(seed)
    met = [killed_after(begin(), source.randrange(*draws), lambda: count.stat().st_size) for _ in range(kills)]
    assert sum(met) >= min(kills, 3), "most of the kills came too late"
    code, said = told(begin())
    assert code in DONE, said


def rows_of(folder, metrics):
    """Each value of each curve, by study, trial, step and metric, of which there are so many; all is complete."""
    found = {}
    with open_ledger(str(folder / "study.sqlite"), create=False) as ledger:
        for row in ledger.studies("study"):
            records = ledger.trials(row.study_id)
            assert {record.state.value for record in records} == {"complete"}, [one.reason for one in records]
            stored = ledger.measurements(row.study_id)
            columns = zip(stored.trial_numbers, stored.steps, stored.metrics, stored.values, strict=True)
            rows = {(row.study.name, trial, step, name): value.hex() for trial, step, name, value in columns}
            assert len(rows) == metrics * len(records) * len(row.study.budget.evaluation_steps)
            found |= rows
    return found
