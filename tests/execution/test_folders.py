"""The backend trains only into a folder of its storage, and notices when the folder is given to another one."""

import json

import pytest
from support.loaded import loaded
from support.loaded import train as train_here
from support.tiny import Tiny, tiny_study

from tuner.errors import StorageError
from tuner.execution.backend import Silent
from tuner.rounds.plan import planned_trials
from tuner.storage.ownership import claimed_folder
from tuner.storage.store import open_ledger
from tuner.stores.places import OWNER_FILE

STUDY = tiny_study()


@pytest.fixture
def train(tmp_path):
    def run(ledger, listener=None, campaign="tiny"):
        tiny = loaded(Tiny(), tmp_path / "shared", device="cpu")
        row = ledger.start_study(campaign, STUDY, tiny.fingerprint(), trials=planned_trials(STUDY))
        train_here(tiny, ledger, row, listener)

    return run


def test_nothing_is_trained_into_the_folder_of_another_storage(train, tmp_path):
    with open_ledger(str(tmp_path / "one.sqlite")) as one, open_ledger(str(tmp_path / "two.sqlite")) as two:
        train(one)
        before = {path: path.read_bytes() for path in (tmp_path / "shared").rglob("*") if path.is_file()}
        for campaign in ("tiny", "another"):
            with pytest.raises(StorageError, match=r"shared belongs to the storage .*one\.sqlite"):
                train(two, campaign=campaign)
        assert {path: path.read_bytes() for path in (tmp_path / "shared").rglob("*") if path.is_file()} == before
        assert not any(two.trials(row.study_id)[0].attempt for row in two.studies("tiny")), "no trial was claimed"


def test_a_launch_whose_folder_is_given_away_stops_and_deletes_nothing(train, tmp_path):
    root = tmp_path / "shared"

    class GivenAway(Silent):
        def trial_ended(self, claim, update):
            (root / "tiny" / STUDY.name / "trial-00000" / "latest-000000001-1.pt").write_bytes(b"of the other")
            told = json.loads((root / OWNER_FILE).read_text())
            (root / OWNER_FILE).write_text(json.dumps(told | {"storage": "f" * 32}))

    with open_ledger(str(tmp_path / "one.sqlite")) as one:
        with pytest.raises(StorageError, match="was given to the storage"):
            train(one, GivenAway())
        with pytest.raises(StorageError, match="belongs to the storage"):
            claimed_folder(one, root)
    assert (root / "tiny" / STUDY.name / "trial-00000" / "latest-000000001-1.pt").exists()
