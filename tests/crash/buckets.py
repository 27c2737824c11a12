"""Kill, resume, compare, where the checkpoints are in a bucket: as `loop.py`, whose lives these are.

    echo '{"folder": "FOLDER", "mode": "killed", "numbers": [ENVIRONMENT, 10, 1]}' | python buckets.py

No process that forks lives uses the bucket itself: its client hangs in a forked process. So all that is looked at is
looked at by a child, which writes down what it found.
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
from functools import partialmethod
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))

import safetensors.torch
from crash.lives import Exact, Place, Sqlite, broken_promises, child, ended, life, meaning, serve

from tuner.storage.store import Ledger, open_ledger
from tuner.stores import buckets
from tuner.stores.contact import PROBE
from tuner.stores.places import OWNER_FILE, files_below, name_below, parsed_root
from tuner.stores.uploads import spool_folder
from tuner.stores.writing import write_durably
from tuner.training import committing
from tuner.training.checkpoints import state_in

ENOUGH = 3


class InBucket(Place):
    """A study in a folder, whose checkpoints are in a bucket."""

    @property
    def checkpoints(self):
        return parsed_root(f"s3://place/{self.folder.parent.parent.name}/{self.folder.name}")


class Buckets(Sqlite):
    def there(self, name):
        return InBucket(self.folder / name, f"sqlite:///{self.folder / name}/tuner.sqlite")


def asked(place, look):
    """What a child sees. `look` gives what JSON can hold."""
    file = place.folder / "seen"
    assert ended(child(lambda: file.write_text(json.dumps(look())))) == 0
    return json.loads(file.read_text())


def half_visible(place):
    """Objects that are there and cannot be read."""
    wrong = []
    for path in files_below(place.checkpoints):
        if f"/{PROBE}/" in path.key:  # of a life that was killed within it: a later one deletes it
            continue
        read = safetensors.torch.load if path.name.endswith(".safetensors") else state_in
        try:
            read(path.read_bytes()) if path.name != OWNER_FILE else None
        except Exception as error:
            wrong.append(f"{path}: {error}")
    return wrong


def orphans(place):
    """Objects that nothing names; files of frozen parameters are named by the checkpoints that need them."""
    with open_ledger(place.url, create=False) as ledger:
        known = {file.path for file in ledger.checkpoint_files()}
    names = {name_below(path, place.checkpoints) for path in files_below(place.checkpoints)}
    names = {name for name in names if not name.startswith(f"{PROBE}/")}
    return sorted(names - known - {OWNER_FILE}), sorted(known - names)


def killed(folder, environment, kills, seed):
    """Kills at any failpoint and at random moments, of lives that save while they train or in between."""
    prepare(folder, environment)
    Ledger.claim = partialmethod(Ledger.claim, max_attempts=1_000_000)
    plain = Sqlite(folder / "plain").planned("whole")
    assert ended(life(plain)) == 0
    expected = asked(plain, lambda: repr(meaning(plain)))
    databases, generator, wrong, done, studies = Buckets(folder / "studies"), random.Random(seed), [], 0, 0
    while done < kills and len(wrong) < ENOUGH:
        place, studies = databases.planned(f"study-{studies}"), studies + 1
        while done < kills:
            code = _one_life(place, generator)
            if code != -signal.SIGKILL:
                wrong += [f"a life ended with {code}"] * bool(code)
                break
            done += 1
            wrong += asked(place, lambda: half_visible(place) + broken_promises(place, at_rest=False))  # noqa: B023
        assert ended(life(place)) == 0
        wrong += asked(place, lambda: broken_promises(place, at_rest=True))  # noqa: B023
        left, lost = asked(place, lambda: orphans(place))  # noqa: B023
        wrong += [f"orphan {name}" for name in left] + [f"lost {name}" for name in lost]
        wrong += ["other bits than in a folder"] * (asked(place, lambda: repr(meaning(place))) != expected)  # noqa: B023
    return {"kills": done, "studies": studies, "wrong": wrong, "spooled": spooled()}


def _one_life(place, generator):
    with patch.object(committing, "BACKGROUND_BYTES", generator.choice([0, 4 << 20])):
        if generator.random() < 0.5:
            return ended(life(place, armed=f"*@{generator.randint(1, 300)}=kill9"))
        number = life(place, Exact(slow=0.002))
    time.sleep(generator.uniform(0.05, 0.8))
    os.kill(number, signal.SIGKILL)
    return ended(number)


def in_parts(folder, environment, kills, seed):
    """Kills while objects of several parts are sent: each is there whole, by its own digest, or not at all."""
    prepare(folder, environment)
    generator = random.Random(seed)
    place = InBucket(folder / "studies" / "parts", "")
    place.folder.mkdir(parents=True)
    for kill in range(kills):
        begun = place.folder / f"begun-{kill}"
        number = child(lambda: send(place.checkpoints / str(kill), begun))  # noqa: B023
        while not begun.exists():
            time.sleep(0.01)
        time.sleep(generator.uniform(0.0, 0.6))
        os.kill(number, signal.SIGKILL)
        ended(number)
    assert ended(child(lambda: send(place.checkpoints / "last", place.folder / "last", 1))) == 0
    seen = asked(place, lambda: [(path.name, path.stat().st_size) for path in files_below(place.checkpoints)])
    wrong = [f"{name} has {size} bytes" for name, size in seen if size != SENT]
    return {"kills": kills, "whole": len(seen), "wrong": wrong, "spooled": spooled()}


SENT = 11 << 20


def send(place, begun, most=1_000):
    """Write objects of three parts, one after the other."""
    buckets.AT_ONCE, buckets.PART = 1 << 20, 5 << 20
    content = os.urandom(SENT)
    begun.touch()
    for number in range(most):
        write_durably(place / f"{number}.pt", lambda file: file.write(content))


def prepare(folder, environment):
    os.environ |= environment
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None


def spooled():
    return [path.name for path in spool_folder().glob("*.part")]


MODES = {"killed": killed, "in_parts": in_parts}

if __name__ == "__main__":
    serve(lambda wanted: MODES[wanted["mode"]](Path(wanted["folder"]), *wanted["numbers"]))
