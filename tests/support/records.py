"""What a launch left in its Ledger, read past the program."""

import sqlite3

CURVES = (
    "select number, trial.state, metric.name, measurement.step, value_kind, hex(value) from measurement "
    "join trial on trial.id = trial_id join metric on metric.id = metric_id order by 1, 3, 4"
)


def rows(folder, query):
    connection = sqlite3.connect(folder / "runs" / "tuner.sqlite")
    found = connection.execute(query).fetchall()
    connection.close()
    return found
