"""Server CPU that many workers cost one PostgreSQL: their own calls of the Ledger are replayed, at the rate they have.

    python benchmarks/control_plane.py                     # 1,000 workers: steady state, tail, all at once
    python benchmarks/control_plane.py --workers 10000 --scenes steady,tail
    python benchmarks/control_plane.py --scenes herd,notify

A PostgreSQL of its own is started in a temporary folder, on loopback, with fsync. A few connections make the calls of
all simulated workers, each when it is due: it is the rate that costs, not the number of those who ask. CPU is that of
all server processes, those that ended included. Beside today's code stands the code before (idle polls of three
transactions every half second, twelve beats a lease, a ping before each transaction), replayed by the same statements;
where that is more than this machine can do, a part of its calls is made (`share`) and the result is scaled.
"""

import argparse
import multiprocessing
import os
import random
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
from sqlalchemy import select

from tuner.budget.families import constant_then_decay
from tuner.budget.step_budget import StepBudget
from tuner.design.hyperparameters import log_uniform
from tuner.design.objective import at_most, minimize
from tuner.design.points import Point
from tuner.design.space import SearchSpace
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.execution.leases import BEATS
from tuner.execution.machine import LEASE_SECONDS
from tuner.execution.waiting import ASK_SECONDS, pause_seconds
from tuner.records import Measurement, State, TrialUpdate
from tuner.storage import reading
from tuner.storage.schema import trial
from tuner.storage.store import open_ledger

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from storage.postgres import Server

COMMIT_SECONDS = 5.0  # between two commits of a trial in training
TRIAL_SECONDS = 600.0  # a trial takes so long, and then the next one is claimed
METRICS = ("validation/loss", "training/loss", "batch/loss")
PROCESSES, THREADS = 2, 8
RARE = 4.0  # rare calls are made over so many times longer, so much faster
WAITED = 300.0  # at the tail, workers have waited up to so many seconds


@dataclass(frozen=True)
class Load:
    """One kind of call as `workers` make it within so many (simulated) seconds.

    share: of these calls, the part that is really made. speed: rare calls are made so many times faster than they come.
    """

    kind: str
    workers: int
    running: int
    seconds: float
    share: float = 1.0
    pings: bool = False
    speed: float = 1.0

    def due(self, seed):
        """When each call is due, and by which worker, in order."""
        chance = random.Random(seed)
        times = []
        for worker in range(self.workers):
            if chance.random() < self.share:
                times += [(moment / self.speed, worker) for moment in self._moments(chance)]
        return sorted(times)

    def _moments(self, chance):
        if self.kind in ("wait", "wait at first"):
            waited = chance.uniform(0.0, WAITED) if self.kind == "wait" else 0.0
            return _questions(waited, self.running, self.seconds, chance)
        every = EVERY[self.kind]
        first, moments = chance.uniform(0.0, every), []
        while first < self.seconds:
            moments.append(first)
            first += every
        return moments


EVERY = {
    "beat": LEASE_SECONDS / BEATS,
    "beat before": LEASE_SECONDS / BEATS,
    "beat of 64": LEASE_SECONDS / BEATS,
    "64 beats before": LEASE_SECONDS / BEATS,
    "commit": COMMIT_SECONDS,
    "next trial": TRIAL_SECONDS,
    "look": ASK_SECONDS,
    "poll before": 0.5,
    "claim": 1.0,
}


def _questions(waited, running, seconds, chance):
    """The moments of one waiting worker's questions, by the program's own rule."""
    moment, moments = 0.0, []
    if waited:
        moment = pause_seconds(waited, running, chance.uniform) * chance.random()
    while moment < seconds:
        moments.append(moment)
        moment += pause_seconds(waited + moment, running, chance.uniform)
    return moments


# The calls


class Worker:
    """What one connection does for simulated workers, each of which has a name and perhaps a claim."""

    def __init__(self, url, row, claims, load):
        self.ledger, self.row, self.claims = open_ledger(url, create=False), row, claims
        self.steps = {}
        self.ledger._database._engine.pool._pre_ping = load.pings
        self.ledger._learn_metrics(set(METRICS))
        self._warm_up(load)

    def _warm_up(self, load):
        """Let the server's process read its catalogues, as that of a worker has done long ago."""
        self.ledger.claim(0, worker="nobody", lease_seconds=1.0)
        if self.claims:
            self._commit(next(iter(self.claims)))
        if load.kind not in ("next trial", "claim"):
            self.call(load.kind, next(iter(self.claims)))

    def call(self, kind, worker):
        getattr(self, f"_{kind.replace(' ', '_')}")(worker)

    def _beat(self, worker):
        assert self.ledger.renew([self.claims[worker]])

    def _beat_before(self, worker):
        renewal = _renewal_before(self.claims[worker])
        self.ledger._database.write(lambda connection: connection.execute(renewal))

    def _beat_of_64(self, _worker):
        """One coordinator's, whose workers hold 64 trials."""
        held = list(self.claims.values())[:64]
        assert len(self.ledger.renew(held)) == len(held)

    def _64_beats_before(self, _worker):
        held = list(self.claims.values())[:64]
        renewals = [_renewal_before(claim) for claim in held]
        self.ledger._database.write(lambda connection: [connection.execute(one) for one in renewals])

    def _commit(self, worker):
        claim, step = self.claims[worker], time.time_ns()
        measured = tuple(Measurement(step, metric, 0.5) for metric in METRICS)
        self.ledger.record([TrialUpdate(claim.trial_id, claim.fence, step, measured)])

    def _next_trial(self, worker):
        claim = self.claims[worker]
        self.ledger.record([TrialUpdate(claim.trial_id, claim.fence, time.time_ns(), state=State.COMPLETE)])
        (self.claims[worker],) = self.claim(worker)

    def _wait(self, _worker):
        assert not self.ledger.work_left(self.row.study_id).free

    _wait_at_first = _wait

    def _look(self, _worker):
        self.ledger.workers_here(self.row.study_id)

    def _poll_before(self, worker):
        running = (trial.c.study_id == self.row.study_id, trial.c.state == "running", trial.c.lease_until > 0.0)
        holders = select(trial.c.id, trial.c.fence, trial.c.worker).where(*running)
        self.ledger._database.write(lambda connection: connection.execute(holders).all())
        assert not self.claim(worker)
        self.ledger._database.read(lambda connection: reading.count_states(connection, self.row.study_id))

    def _claim(self, worker):
        assert self.claim(worker)

    def claim(self, worker):
        return self.ledger.claim(self.row, worker=name(worker), lease_seconds=LEASE_SECONDS * 100)


def _renewal_before(claim):
    ours = trial.c.id == claim.trial_id, trial.c.fence == claim.fence, trial.c.state == "running"
    return trial.update().where(*ours).values(lease_until=trial.c.lease_until)


def name(worker):
    """As long as a real one, and of another machine."""
    boot = "01234567-89ab-cdef-0123-456789abcdef:4026531836.4026531834"
    return f"node-{worker // 8:04d}:{10_000 + worker}:0123abcd:{boot}:9"


def client(url, row, claims, load, part, start, results):
    """Make every PROCESSES-th call of a load when it is due, by THREADS connections."""
    hands = [Worker(url, row, claims, load) for _ in range(THREADS)]
    events = iter(load.due(seed=1)[part::PROCESSES])
    lock, latencies = threading.Lock(), []
    start.wait()
    began, cpu = time.monotonic(), time.process_time()

    def work(hand):
        while True:
            with lock:
                event = next(events, None)
            if event is None:
                return
            time.sleep(max(0.0, began + event[0] - time.monotonic()))
            called = time.monotonic()
            hand.call(load.kind, event[1])
            latencies.append(time.monotonic() - called)

    threads = [threading.Thread(target=work, args=(hand,)) for hand in hands]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put((latencies, time.process_time() - cpu))
    start.wait()  # the server's processes end when they have been counted
    for hand in hands:
        hand.ledger.close()


# The server


def server_cpu(server):
    """Seconds that all processes of the server have used, those that have ended included."""
    first = (server.data / "postmaster.pid").read_text().split()[0]
    ticks = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if first in (fields[1], status.parent.name):
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def connected(url):
    with open_ledger(url) as ledger:
        ledger._learn_metrics(set(METRICS))
        yield ledger


def study(study_name, trials):
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1))
    return Study(
        name=study_name, kind="round", goal="?", hyperparameters=space.hyperparameters, fixed=space.fixed,
        budget=StepBudget(100, 10), num_trials=trials, objective=minimize("validation/loss"),
        fitted_when=at_most("training/error_rate", 0.0), optimizer="sgd", schedule=constant_then_decay(),
        warmup_steps=5, batch_size=64, seed=1, round=1, lineage=(),
    )  # fmt: skip


def planned(ledger, study_name, trials):
    """A study of so many waiting trials."""
    declared = study(study_name, trials)
    row = ledger.start_study("control plane", declared, "code and data")
    schedule = declared.schedule.schedule(100, 5)
    point = Point.of({"learning_rate": 0.1})
    ledger.plan_trials(row.study_id, [Trial(k, point, k, k, schedule, "quasi-random", "") for k in range(trials)])
    return row


def claimed(ledger, row, workers):
    """The claims of so many workers, by one transaction each; none is a worker of this machine."""
    claims = {}
    for worker in range(workers):
        (claims[worker],) = ledger.claim(row, worker=name(worker), lease_seconds=LEASE_SECONDS * 100)
    return claims


def analyzed(server):
    """Statistics as autovacuum makes them within a minute, and nothing left to do for it."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def measured(server, row, claims, load):
    """(calls, server CPU seconds, client CPU seconds, seconds it took, latencies in order) of a load."""
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(PROCESSES + 1), context.Queue()
    clients = [
        context.Process(target=client, args=(server.url, row, claims, load, part, start, results))
        for part in range(PROCESSES)
    ]
    for one in clients:
        one.start()
    start.wait()
    before, began = server_cpu(server), time.monotonic()
    answers = [results.get() for _ in clients]
    took, used = time.monotonic() - began, server_cpu(server) - before
    start.wait()
    for one in clients:
        one.join()
    latencies = sorted(one for latency, _ in answers for one in latency)
    return len(latencies), used, sum(cpu for _, cpu in answers), took, latencies


# Scenes


def told(load, result):
    """Print the line of a load; returns its server CPU seconds a minute."""
    calls, used, client_cpu, took, latencies = result
    minute = used / load.share * 60 / load.seconds
    rate = calls / load.share / load.seconds
    p50, p99 = (latencies[int(len(latencies) * part)] * 1e3 if latencies else 0.0 for part in (0.5, 0.99))
    print(
        f"  {load.kind:14} {rate:7.1f}/s  {used / max(1, calls) * 1e3:6.2f} ms of server, "
        f"{client_cpu / max(1, calls) * 1e3:5.2f} of client a call; p50 {p50:6.1f}, p99 {p99:7.1f} ms; "
        f"{minute:7.1f} s a minute  (share {load.share:g}, {calls} calls in {took:.0f} s)",
        flush=True,
    )
    return minute


def sides(server, row, claims, now, before):
    for side, loads in (("before", before), ("now", now)):
        print(f" {side}:")
        minute = sum(told(load, measured(server, row, claims, load)) for load in loads if load.workers)
        print(f"  together {minute:.1f} CPU seconds a minute: {minute / 60:.3f} cores", flush=True)


def rare(load):
    """The same load over a longer time, in the same time."""
    return replace(load, seconds=load.seconds * RARE, speed=RARE)


def steady(server, workers, seconds, _share):
    """All workers train; more trials wait."""
    with connected(server.url) as ledger:
        row = planned(ledger, f"steady {workers}", 3 * workers)
        claims = claimed(ledger, row, workers)
    analyzed(server)
    print(f"steady state: {workers} workers train, {2 * workers} trials wait")
    now = [rare(Load("beat", workers, workers, seconds)), Load("commit", workers, workers, seconds)]
    before = [replace(load, pings=True) for load in now]
    before[0] = replace(before[0], kind="beat before")
    sides(server, row, claims, now, before)
    ends = rare(Load("next trial", workers, workers, seconds))
    minute = told(ends, measured(server, row, claims, ends))  # last, because it changes who holds what
    print(f"  which is {minute / 60:.3f} cores more, on both sides", flush=True)


def group(server, _workers, seconds, _share):
    """Coordinators whose machines train 64 trials each; and what a ping before each transaction costs."""
    with connected(server.url) as ledger:
        row = planned(ledger, "group", 5000)
        claims = claimed(ledger, row, 200)
    analyzed(server)
    print("beats of 64 trials, and of one without and with a ping")
    many = rare(Load("beat of 64", 16, 200, seconds))
    one = rare(Load("beat", 200, 200, seconds))
    for load in (many, replace(many, kind="64 beats before"), one, replace(one, pings=True), one):
        told(load, measured(server, row, claims, load))


def tail(server, workers, seconds, share):
    """Half of the workers train the last trials, the others wait for them."""
    half = workers // 2
    with connected(server.url) as ledger:
        row = planned(ledger, f"tail {workers}", half)
        claims = claimed(ledger, row, half)
    analyzed(server)
    print(f"tail: {half} workers train, {half} wait")
    training = [rare(Load("beat", half, half, seconds)), Load("commit", half, half, seconds)]
    before = [replace(load, pings=True) for load in training]
    before[0] = replace(before[0], kind="beat before")
    before.append(Load("poll before", half, half, seconds, share=share, pings=True))
    waiting = Load("wait", half, half, seconds)
    sides(server, row, claims, [*training, waiting, rare(replace(waiting, kind="look"))], before)
    print(" where all of them begin to wait at one moment, at first:")
    first = replace(waiting, kind="wait at first")
    told(first, measured(server, row, claims, first))


def herd(server, workers, _seconds, _share):
    """All workers claim at one moment."""
    for waiting in (workers, 100 * workers):
        with connected(server.url) as ledger:
            row = planned(ledger, f"herd {waiting}", waiting)
        analyzed(server)
        load = Load("claim", workers, 0, 1.0)
        result = measured(server, row, {}, load)
        calls, used, _, took, latencies = result
        print(
            f"{calls} claims at once of {waiting} waiting trials, by {PROCESSES * THREADS} connections: {took:.1f} s, "
            f"p50 {latencies[calls // 2] * 1e3:.1f}, p99 {latencies[int(calls * 0.99)] * 1e3:.1f} ms, "
            f"{used / calls * 1e3:.2f} ms of server a claim",
            flush=True,
        )
        with connected(server.url) as ledger:
            assert ledger.state_counts(row.study_id)[State.RUNNING] == workers
            began = time.monotonic()
            for _ in range(20):
                ledger.state_counts(row.study_id)
            counted, began = (time.monotonic() - began) / 20, time.monotonic()
            for _ in range(20):
                ledger.work_left(row.study_id)
            print(f"  state_counts {counted * 1e3:.1f} ms, work_left {(time.monotonic() - began) / 20 * 1e3:.1f} ms")


def notify(server, _workers, _seconds, _share):
    """What LISTEN and NOTIFY would cost instead of questions: every listener is woken by every word."""
    listeners = [psycopg.connect(server.url, autocommit=True) for _ in range(200)]
    for one in listeners:
        one.execute("LISTEN trials")
    words = 100
    with psycopg.connect(server.url, autocommit=True) as speaker:
        before = server_cpu(server)
        for _ in range(words):
            speaker.execute("NOTIFY trials")
            time.sleep(0.02)
    for one in listeners:
        heard = len(list(one.notifies(timeout=5.0, stop_after=words)))
        assert heard == words, heard
        one.close()
    used = (server_cpu(server) - before) / words / len(listeners)
    print(f"notify: {used * 1e6:.0f} us of server for each listener and word ({len(listeners)} listeners)")


SCENES = {"herd": herd, "group": group, "steady": steady, "tail": tail, "notify": notify}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0, help="simulated, of each kind of call")
    parser.add_argument(
        "--share", type=float, default=0.02, help="of the polls of the code before that are really made"
    )
    parser.add_argument("--scenes", default="herd,group,steady,tail,notify")
    given = parser.parse_args()
    server = Server(max_connections=300)
    try:
        for scene in given.scenes.split(","):
            SCENES[scene](server, given.workers, given.seconds, given.share)
    finally:
        server.close()
    print(f"load of this machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
