"""What a launch left in its Ledger, read past the program."""

import sqlite3

from sqlalchemy import create_engine, text

from tuner.storage.engine import parsed_url

CURVES = (
    "select number, trial.state, metric.name, measurement.step, value_kind, hex(value) from measurement "
    "join trial on trial.id = trial_id join metric on metric.id = metric_id order by 1, 3, 4"
)


def rows(folder, query):
    connection = sqlite3.connect(folder / "runs" / "tuner.sqlite")
    found = connection.execute(query).fetchall()
    connection.close()
    return found


def rows_at(url, query):
    """As `rows`, of the storage at this address; none where its tables are not there yet."""
    engine = create_engine(parsed_url(url))
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]
    except Exception:
        return []
    finally:
        engine.dispose()
