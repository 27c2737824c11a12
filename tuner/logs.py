"""Log records show text from outside: each is kept on one line, without hidden characters.

It is apart from `shown`, because the import of logging takes as long as a tenth of `import tuner`.
"""

import logging

from tuner.shown import one_line


def escape_logs() -> None:
    """Keep every log record of this package on one line from now on, for all handlers."""
    made = logging.getLogRecordFactory()

    def escaped(*arguments: object, **named: object) -> logging.LogRecord:
        record = made(*arguments, **named)
        if record.name.split(".")[0] == "tuner":
            record.msg, record.args = one_line(record.getMessage()), ()
        return record

    logging.setLogRecordFactory(escaped)
