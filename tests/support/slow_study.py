"""A campaign whose steps last as long as the environment says (SLOWLY, in seconds), and its records in any database."""

from sqlalchemy import create_engine, text
from sqlalchemy.exc import ProgrammingError

from support.study_files import write_study
from tuner.storage.engine import parsed_url

TRIALS, STEPS = 4, 60
# From the first look on, which takes a dozen losses. No two trials are stacked, so that each process has one.
LOSS = "return F.cross_entropy(model(batch[0]), batch[1])"
SLOW_LOSS = """calls.append(0)
        loss = F.cross_entropy(model(batch[0]), batch[1])
        if len(calls) > 20 and float(loss.detach()) == float(loss.detach()):
            time.sleep(float(os.environ.get("SLOWLY", "0")))
        return loss"""
CALLS = "\nimport os\nimport time\n\ncalls = []\n\n\nclass Tiny"
SWEEP = "    sweep=Sweep(learning_rate=log_grid(1e-3, 1.0), start_steps=100, max_steps=800, seeds=2),\n"
CURVES = (
    "select study.name, number, trial.state, trial.step, metric.name, measurement.step, value_kind, value "
    "from measurement join trial on trial.id = trial_id join study on study.id = study_id "
    "join metric on metric.id = metric_id order by 1, 2, 5, 6"
)
BEST = (
    "select study.name, number, checkpoint.step, digest from checkpoint "
    "join checkpoint_file on checkpoint_file.id = file_id join trial on trial.id = trial_id "
    "join study on study.id = study_id where checkpoint.kind = 'best' order by 1, 2, 3"
)


def write_slow(folder, slices=1):
    """Two rounds of four trials, in `study.py`."""
    micro = f"    batch_size = 8\n    micro_batch_size = {8 // slices}\n" if slices > 1 else "    batch_size = 8\n"
    replace = [(LOSS, SLOW_LOSS), ("\n\nclass Tiny", CALLS), (SWEEP, ""), ("    batch_size = 8\n", micro)]
    return write_study(folder, "study.py", trials=TRIALS, steps=STEPS, replace=replace)


def rows(url, query):
    """What a query finds; nothing before the tables are there."""
    engine = create_engine(parsed_url(url))
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]
    except ProgrammingError:
        return []
    finally:
        engine.dispose()


def records(url):
    """Every measurement, exactly, and the sha256 of the best weights of every trial."""
    return {"curves": rows(url, CURVES), "best weights": rows(url, BEST)}


def steps(url):
    """Committed steps of all trials, and claims; both grow while anybody trains."""
    return next(iter(rows(url, "select coalesce(sum(step), 0), coalesce(sum(fence), 0) from trial")), (0, 0))


def new_database(server, name):
    """The URL of a database of its own on a server."""
    engine = create_engine(parsed_url(server.url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"create database {name}"))
    engine.dispose()
    return f"{server.url.rpartition('/')[0]}/{name}"
