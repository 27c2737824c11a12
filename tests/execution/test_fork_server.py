"""The fork server imports the packages of a study once for all workers, unless one of them starts a thread."""

import sys
from contextlib import closing

import pytest
from support.loaded import loaded
from support.study_files import write_study

from tuner.design.study_file import load_campaign
from tuner.execution.backend import Job, Silent
from tuner.execution.fork_server_process import import_packages, imported_names
from tuner.execution.workers import Workers
from tuner.records import State
from tuner.rounds.plan import planned_trials, study_of_round
from tuner.storage.store import open_ledger

HEAVY = "import os\nwith open({log!r}, 'a') as file:\n    file.write(f'{{os.getpid()}}\\n')\n"
THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"


@pytest.fixture
def heavy(tmp_path, monkeypatch):
    """Installs the package `heavy`, which notes who imports it; returns where."""

    def install(more="", folder="packages"):
        (tmp_path / folder / "heavy-1.dist-info").mkdir(exist_ok=True, parents=True)
        (tmp_path / folder / "heavy-1.dist-info" / "RECORD").write_text("heavy.py,,\n")
        (tmp_path / folder / "heavy.py").write_text(HEAVY.format(log=str(tmp_path / "log")) + more)
        return tmp_path / "log"

    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    yield install
    sys.modules.pop("heavy", None)


def trained_by_two(file, folder):
    _, campaign = load_campaign(file)
    study = study_of_round(campaign, 1, 20)
    url, local = (
        str(folder / "l.sqlite"),
        loaded(campaign.workload, folder, device="cpu", worker_count=2, study_file=file),
    )
    with closing(Workers(f"sqlite:///{url}")) as workers, open_ledger(url) as ledger:
        row = ledger.start_study("tiny", study, local.fingerprint())
        ledger.plan_trials(row.study_id, planned_trials(study))
        workers.run(Job(ledger, row, local), Silent(), lambda: False)
        assert ledger.state_counts(row.study_id)[State.COMPLETE] == 4


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux")
@pytest.mark.parametrize(("more", "importers"), [("", 2), (THREAD, 4)])
def test_a_package_is_imported_once_for_two_workers_unless_it_starts_a_thread(more, importers, heavy, tmp_path):
    log = heavy(more)
    trained_by_two(
        write_study(tmp_path, steps=20, replace=[("import torch\n", "import torch\nimport heavy\n")]), tmp_path
    )
    assert len(set(log.read_text().split())) == importers, "we, the fork server, and with a thread each worker"


def test_what_stands_beside_the_study_and_what_fails_is_left_to_the_worker(heavy, tmp_path):
    log = heavy()
    study = tmp_path / "study.py"
    study.write_text("import heavy\nimport no_such_package\nfrom . import x\n\ndef later():\n    import never\n")
    assert list(imported_names(study)) == ["heavy", "no_such_package"]
    heavy(folder=".")
    assert import_packages(str(study))
    assert not log.exists()
    (tmp_path / "heavy.py").unlink()
    assert import_packages(str(study))
    assert log.exists()


@pytest.mark.parametrize("text", [b"def (", b"\xff\xfe", None])
def test_a_file_that_is_no_study_imports_nothing(text, tmp_path):
    study = tmp_path / "study.py"
    if text is not None:
        study.write_bytes(text)
    assert list(imported_names(study)) == []
