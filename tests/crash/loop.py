"""Kill, resume, compare: lives of a worker that end at a failpoint, at random, or too late.

    echo '{"folder": "FOLDER", "mode": "lost", "numbers": [], "postgresql": false}' | python loop.py

A script and not a test, because a life is a fork: it has imported torch and computed nothing. Each line asks for a
mode, a function below with its numbers; answered are its process group and its exit code, and the folder's `result`
holds what it found: `wrong` is what the promises forbid. Studies lie in SQLite files or on a PostgreSQL server.
"""

import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from functools import partialmethod
from itertools import count
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))

from crash import lives
from crash.lives import (
    QUICK_BEATS,
    STUDY,
    Exact,
    Judge,
    Postgres,
    Sqlite,
    broken_promises,
    child,
    ended,
    life,
    plan,
    serve,
    train,
)
from crash.power import Disk, synchronous
from crash.sabotage import SABOTAGES, sabotage
from storage.proxy import Proxy

from tuner.budget.step_budget import StepBudget
from tuner.storage.store import Ledger, open_ledger
from tuner.training import committing

ENOUGH = 3  # things that are wrong; more would say no more
HURRIED = {"lease": QUICK_BEATS}


def names(databases):
    """The names of all failpoints that a life passes, whose heart beats often."""
    place = databases.planned("beating")
    file = place.folder / "names"
    assert ended(child(lambda: file.write_text(" ".join(train(place, Exact(slow=0.005), **HURRIED))))) == 0
    return {"names": sorted(set(file.read_text().split()))}


def systematic(databases, first, stride):
    """One kill -9 at each pass of each failpoint, every `stride`-th of them."""
    judge = Judge(databases)
    wrong = []
    for kills, k in enumerate(count(first, stride)):
        place = databases.planned(f"kill-{k}")
        if ended(life(place, armed=f"*@{k}=kill9")) == 0 or len(wrong) >= ENOUGH:
            return {"kills": kills, "wrong": wrong}
        found = broken_promises(place, at_rest=False) + judge.last_life(place)
        wrong += [f"kill {k}: {one}" for one in found]
        databases.forget(place)
    raise AssertionError("counting does not end")


def each_kind(databases, part, parts, every):
    """One kill -9 at the first two and the last pass of each failpoint, and at every `every`-th pass of any."""
    judge, wrong = Judge(databases), []
    place = databases.planned("traced")
    file = place.folder / "trace"
    assert ended(child(lambda: file.write_text(" ".join(train(place))))) == 0
    trace = file.read_text().split()
    passes = {name: [k for k, passed in enumerate(trace, 1) if passed == name] for name in trace}
    chosen = {k for found in passes.values() for k in (*found[:2], found[-1])} | set(range(1, len(trace) + 1, every))
    for k in sorted(chosen)[part::parts]:
        place = databases.planned(f"kill-{k}")
        code = ended(life(place, armed=f"*@{k}=kill9"))
        found = [] if code == -signal.SIGKILL else [f"ended with {code}"]
        found += broken_promises(place, at_rest=False) + judge.last_life(place)
        wrong += [f"kill {k}, {trace[k - 1]}: {one}" for one in found]
        databases.forget(place)
        if len(wrong) >= ENOUGH:
            break
    return {"kills": len(chosen), "passes": len(trace), "wrong": wrong}


def aside(databases, kills, seed):
    """Kills while every state, however small, is saved beside the training by a thread: at random passes, for nobody
    knows their number.
    """
    patch.object(committing, "BACKGROUND_BYTES", 0).start()
    judge = Judge(databases)
    generator, wrong, done = random.Random(seed), [], 0
    while done < kills and len(wrong) < ENOUGH:
        place, k = databases.planned(f"kill-{done}"), generator.randint(1, 600)
        done += ended(life(place, armed=f"*@{k}=kill9")) == -signal.SIGKILL
        found = broken_promises(place, at_rest=False) + judge.last_life(place)
        wrong += [f"kill {k}: {one}" for one in found]
        databases.forget(place)
    return {"kills": done, "wrong": wrong}


def beats(databases, kills):
    """A kill -9 at each of the first heartbeats, which come in the middle of anything."""
    judge = Judge(databases)
    wrong, slow = [], Exact(slow=0.02)  # half a second a trial: many more beats than kills
    for k in range(1, kills + 1):
        place = databases.planned(f"beat-{k}")
        code = ended(life(place, slow, armed=f"heartbeat@{k}=kill9", **HURRIED))
        found = [] if code == -signal.SIGKILL else [f"ended with {code}"]
        wrong += [f"beat {k}: {one}" for one in found + judge.last_life(place)]
    return {"kills": kills, "wrong": wrong}


def double(databases, pairs, seed):
    """A kill at a random failpoint, and another one in the life that recovers from it."""
    judge = Judge(databases)
    generator, wrong, kills = random.Random(seed), [], 0
    for pair in range(pairs):
        place = databases.planned(f"pair-{pair}")
        places = [generator.randint(1, 240), generator.randint(1, 120)]
        kills += sum(ended(life(place, armed=f"*@{k}=kill9")) == -signal.SIGKILL for k in places)
        found = broken_promises(place, at_rest=False) + judge.last_life(place)
        wrong += [f"kills {places}: {one}" for one in found]
        databases.forget(place)
    return {"kills": kills, "wrong": wrong}


def at_random(databases, kills, seed, stops=0):
    """`kills` SIGKILLs at random moments, two workers on each study, study after study.

    On a server every connection is cut each time, and the server itself is killed `stops` times.
    """
    judge = Judge(databases)
    # A slow machine starts workers more slowly than we kill them, and one trial may be hit any number of times.
    Ledger.claim = partialmethod(Ledger.claim, max_attempts=1_000_000)
    hunter = Hunter(databases, random.Random(seed), kills // (stops + 1))
    wrong, studies = [], 0
    while hunter.killed < kills:
        place, studies = databases.planned(f"random-{studies}"), studies + 1
        found = hunter.hunt(place, kills) + judge.last_life(place)
        wrong += [f"study {studies}: {one}" for one in found]
        databases.forget(place)
        if len(wrong) >= ENOUGH:
            break
    return {"kills": hunter.killed, "studies": studies, "stops": hunter.stops, "wrong": wrong}


class Hunter:
    """Keeps two workers on a study and kills one after the other; makes trouble for the server in between."""

    def __init__(self, databases, generator, kills_per_stop):
        self.databases = databases
        self.generator = generator
        self.kills_per_stop = kills_per_stop
        self.killed = self.stops = 0

    def hunt(self, place, kills):
        """Until a worker finds the study finished, or `kills` are done; returns what is wrong with the ends."""
        slow, workers, code = Exact(slow=0.001), [], -signal.SIGKILL
        while code == -signal.SIGKILL and self.killed < kills:
            workers += [life(place, slow) for _ in range(2 - len(workers))]
            time.sleep(self.generator.uniform(0.05, 0.3))
            self._trouble(place, workers)
            victim = workers.pop(self.generator.randrange(2))
            os.kill(victim, signal.SIGKILL)
            code = ended(victim)
            self.killed += code == -signal.SIGKILL
        codes = [code for code in (*map(ended, workers), code) if code not in (0, -signal.SIGKILL)]
        return [f"a worker ended with {code}" for code in codes]

    def _trouble(self, place, workers):
        if not isinstance(self.databases, Postgres):
            return
        # A server that is away when a worker begins is a wrong address.
        while not all(place.door(worker).exists() or over(worker) for worker in workers):
            time.sleep(0.02)
        self.databases.cut_connections()
        if self.killed > (self.stops + 1) * self.kills_per_stop:
            self.stops += 1
            self.databases.server.stop("immediate")
            time.sleep(self.generator.uniform(0.0, 1.0))
            self.databases.server.start()


def over(process):
    """Whether a child has ended; how can still be asked."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def unanswered(databases, studies, every):
    """Two workers, each behind a proxy that drops the answer to one of `every` commits: nothing is doubled."""
    judge = Judge(databases)
    doors = [Door(databases.server.port, every) for _ in range(2)]
    wrong = []
    for number in range(studies):
        place = databases.planned(f"unanswered-{number}")
        workers = [life(replace(place, url=place.url.replace(str(door.target), str(door.port)))) for door in doors]
        found = [f"a worker ended with {code}" for code in map(ended, workers) if code]
        claims = place.query("select max(fence) from trial")
        found += [] if claims == [(1,)] else [f"{claims} claims"]
        wrong += [f"study {number}: {one}" for one in found + judge.wrong(place)]
    return {"dropped": sum(door.close() for door in doors), "wrong": wrong}


class Door:
    """A proxy in a process of its own, because it has threads, and a process with threads should not be forked."""

    def __init__(self, target, every):
        self.target = target
        self.told, telling = os.pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        self.process = child(lambda: self._serve(every, telling))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        self.port = int(os.read(self.told, 16))

    def _serve(self, every, telling):
        proxy = Proxy(self.target, every)
        os.write(telling, str(proxy.port).encode())
        parent = os.getppid()
        while not signal.sigtimedwait({signal.SIGTERM}, 1.0) and os.getppid() == parent:
            pass
        os.write(telling, str(proxy.dropped).encode())

    def close(self):
        """Close it, and say how many answers were dropped."""
        os.kill(self.process, signal.SIGTERM)
        assert ended(self.process) == 0
        return int(os.read(self.told, 16))


def launchers(databases, rounds, seed):
    """Four launchers at the same moment on storage that is not there yet; in every second round one is killed."""
    judge = Judge(databases)
    generator, wrong = random.Random(seed), []
    for number in range(rounds):
        place = databases.empty(f"round-{number}")
        gate, opened = os.pipe()

        def launch():
            os.close(opened)  # noqa: B023
            os.read(gate, 1)  # noqa: B023 - until the parent closes its end: all start at once
            plan(place)  # noqa: B023
            train(place)  # noqa: B023

        started = [child(launch) for _ in range(4)]
        os.close(gate)
        os.close(opened)
        if number % 2:
            time.sleep(generator.uniform(0.0, 0.15))
            os.kill(started[0], signal.SIGKILL)
        codes = [ended(one) for one in started][number % 2 :]
        found = [f"a launcher ended with {code}" for code in codes if code] + judge.last_life(place)
        wrong += [f"round {number}: {one}" for one in found]
    return {"launchers": 4 * rounds, "wrong": wrong}


def power(databases, first, stride):
    """The power goes out at any moment: what the record names is there, and from every `stride`-th state in which the
    disk may be left a study ends with the same bits.
    """
    place, told = databases.planned("power"), databases.folder / "told"
    judge = Judge(databases)

    def watched():
        disk = Disk(place)
        train(place)
        wrong = disk.wrong()[:ENOUGH]
        left = disk.leave(first, stride, lambda number: databases.empty(f"cut-{number}"))
        told.write_text(json.dumps({"states": len(disk.states), "recovered": left, "wrong": wrong}))

    assert ended(child(watched)) == 0
    found = json.loads(told.read_text())
    found["wrong"] += [] if synchronous(place) == 2 else ["commits are not synced"]
    for number in range(found["recovered"]):
        place = databases.there(f"cut-{number}")
        wrong = broken_promises(place, at_rest=False) + judge.last_life(place)
        found["wrong"] += [f"state {first + number * stride}: {one}" for one in wrong]
        databases.forget(place)
        if len(found["wrong"]) >= ENOUGH:
            break
    return found


def zombie(databases):
    """A worker stopped in the middle of a commit, for longer than its lease, wakes up when its successor is through."""
    judge = Judge(databases)
    wrong = []
    for name in ("ck-written@4", "ck-dirsynced@4", "sweep@4", "tx-committed@5"):
        place = databases.planned(f"zombie-{name.replace('@', '-')}")
        sleeper = life(place, armed=f"{name}=sigstop")
        os.waitpid(sleeper, os.WUNTRACED)
        place.query("update trial set lease_until = 0 where state = 'running'")
        assert ended(life(place)) == 0
        rows = _rows(place)
        os.kill(sleeper, signal.SIGCONT)
        code = ended(sleeper)
        found = [f"the woken worker ended with {code}"] if code else []
        found += ["the woken worker wrote"] if _rows(place) != rows else []
        wrong += [f"{name}: {one}" for one in found + judge.wrong(place)]
    return {"wrong": wrong}


def _rows(place):
    return [place.query(f"select * from {table} order by id") for table in ("trial", "checkpoint_file")]


def gets_on(databases, kills):
    """A trial whose worker is killed `kills` times, each time after one commit more, is never given up.

    In the middle its checkpoints are damaged, and it has a long way to go again.
    """
    places = long_study(databases, 2 * (kills + 2))
    whole, killed = next(places), next(places)
    assert ended(life(whole)) == 0
    wrong = []
    for kill in range(kills):
        if kill == kills // 2:
            damage(killed)
        if ended(life(killed, Exact(steps=3))) != -signal.SIGKILL:
            wrong.append(f"life {kill} was not killed")
    states, claims = killed.query("select state, fence from trial")[0]
    wrong += [] if (states, claims) == ("running", kills) else [f"{states} after {claims} claims"]
    wrong += [f"the last life ended with {code}" for code in [ended(life(killed))] if code]
    wrong += broken_promises(killed, at_rest=True)
    return {"wrong": wrong + ["other bits"] * (lives.meaning(killed) != lives.meaning(whole))}


def stuck(databases, damaged):
    """A trial that always dies at one step is given up after five claims, also where (`damaged`) each finds its
    checkpoints damaged and begins anew; its state stays, and a retry goes on from it to the same bits.
    """
    places = long_study(databases, 40)
    whole, killed = next(places), next(places)
    assert ended(life(whole)) == 0
    lived = 0
    while lived < 12:
        ((step, state),) = killed.query("select step, state from trial")
        if damaged and step:
            damage(killed)
        if ended(life(killed, Exact(steps=11 - (0 if damaged else step)))) == 0:
            break
        lived += 1
    ((state, step, claims, reason),) = killed.query("select state, step, fence, reason from trial")
    told = "quarantined after 5 attempts, none of which got beyond step 10"
    wrong = [] if (lived, state, step, claims) == (5, "failed", 10, 5) else [f"{state} at {step}, {lived} lives"]
    wrong += [] if reason == told else [reason]
    wrong += (
        [] if killed.query("select kind, step from checkpoint where kind = 'latest' and step = 10") else ["no state"]
    )
    with open_ledger(killed.url, create=False) as ledger:
        row = ledger.study(lives.CAMPAIGN, STUDY.name)
        wrong += [] if ledger.retry(row.study_id) == [0] else ["not tried again"]
        wrong += [] if ledger.trial(row.study_id, 0).step == 10 else ["it does not go on from its state"]
    wrong += [f"the last life ended with {code}" for code in [ended(life(killed))] if code]
    return {"wrong": wrong + ["other bits"] * (lives.meaning(killed) != lives.meaning(whole))}


def long_study(databases, steps):
    """One trial of many steps, evaluated after every second: planned in a new place as often as asked for."""
    lives.STUDY = replace(STUDY, num_trials=1, budget=StepBudget(steps, 2))
    for number in count():
        place = databases.empty(f"long-{number}")
        assert ended(child(lambda: plan(place))) == 0  # noqa: B023
        yield place


def damage(place):
    """Change a bit of every saved state."""
    for (path,) in place.query("select path from checkpoint_file join checkpoint on file_id = checkpoint_file.id "
                               "where kind = 'latest'"):  # fmt: skip
        file = place.checkpoints / path
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)


def poison(databases):
    """A trial that takes down every worker is given up after five attempts."""
    place = databases.planned("poison")
    lives = 1
    while ended(life(place, Exact(poison=True))) and lives < 12:
        lives += 1
    states = set(place.query("select state, reason from trial"))
    told = "quarantined after 5 attempts, none of which got beyond step 0"
    wrong = [] if states == {("failed", told)} else [f"states {sorted(states)}"]
    wrong += [] if lives == 5 * STUDY.num_trials + 1 else [f"{lives} lives"]
    return {"lives": lives, "wrong": wrong}


def lost(databases):
    """The answer of the k-th commit gets lost, for each k: nothing is doubled, nobody has to be called."""
    judge = Judge(databases)
    wrong = []
    for k in count(1):
        place = databases.planned(f"lost-{k}")
        reached = place.folder / "reached"

        def losing():
            trace = train(place, armed=f"tx-committed@{k}=operational")  # noqa: B023
            if trace.count("tx-committed") >= k:  # noqa: B023
                reached.touch()  # noqa: B023

        code = ended(child(losing))
        found = [f"ended with {code}"] if code else []
        claims = place.query("select max(fence) from trial")
        found += [] if claims == [(1,)] else [f"{claims} claims"]
        wrong += [f"commit {k}: {one}" for one in found + judge.wrong(place)]
        if code or not reached.exists():
            return {"commits": k - 1, "wrong": wrong}


def sabotaged(databases, first, stride):
    """What the modes above say about every `stride`-th of the broken programs."""
    wrong = {}
    for name, (mode, numbers) in list(SABOTAGES.items())[first::stride]:
        file = databases.folder / f"{name}.json"

        def notice():
            sabotage(name)  # noqa: B023
            found = MODES[mode](Sqlite(databases.folder / name), *numbers)  # noqa: B023
            file.write_text(json.dumps(found["wrong"]))  # noqa: B023

        code = ended(child(notice))
        wrong[name] = json.loads(file.read_text()) if code == 0 else []
    return wrong


MODES = {
    function.__name__: function
    for function in (
        names,
        systematic,
        each_kind,
        aside,
        beats,
        double,
        at_random,
        unanswered,
        launchers,
        power,
        zombie,
        gets_on,
        stuck,
        poison,
        lost,
        sabotaged,
    )
}


def carry_out(asked):
    """What a mode finds in SQLite files or on a server."""
    databases = (Postgres if asked["postgresql"] else Sqlite)(Path(asked["folder"]) / "studies")
    try:
        return MODES[asked["mode"]](databases, *asked["numbers"])
    finally:
        databases.close()


if __name__ == "__main__":
    serve(carry_out)
