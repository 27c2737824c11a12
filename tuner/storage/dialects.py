"""Where SQLite and PostgreSQL differ; everything else of `storage` is written once."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sqlalchemy import ColumnElement, Connection, Dialect, Double, Table, func, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.functions import FunctionElement

from tuner.errors import StorageError

_LEDGER_LOCK = 0x74756E6572  # "tuner": one number that only our transactions lock


class DatabaseTime(FunctionElement[float]):
    """Seconds since 1970 by the database's clock: leases never compare the clocks of two machines."""

    type = Double()
    inherit_cache = True
    name = "database_time"


@compiles(DatabaseTime)
def _sqlite_time(element: DatabaseTime, compiler: SQLCompiler, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(DatabaseTime, "postgresql")
def _postgresql_time(element: DatabaseTime, compiler: SQLCompiler, **options: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


def insert_into(dialect: Dialect, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows ON CONFLICT."""
    return postgresql.insert(table) if dialect.name == "postgresql" else sqlite.insert(table)


@dataclass(frozen=True, slots=True)
class BatchedStatement:
    """A statement for many rows, compiled once and given to the driver as it is.

    SQLAlchemy's own way costs several microseconds a row, which is most of the time of writing a measurement.
    """

    sql: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, statement: ClauseElement, dialect: Dialect) -> "BatchedStatement":
        """`statement`, whose parameters are all given by name in each row."""
        make_dialect: Any = type(dialect)
        positional = make_dialect(paramstyle="format" if dialect.name == "postgresql" else "qmark")
        compiled: Any = statement.compile(dialect=positional)
        return cls(str(compiled), tuple(compiled.positiontup))

    def run(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        """Execute it for every row (values in the order of `names`); returns how many rows it changed."""
        driver: Any = connection.dialect.dbapi
        cursor = connection.connection.cursor()
        try:
            cursor.executemany(self.sql, rows)
            return int(cursor.rowcount)
        except driver.Error as error:
            raise DBAPIError.instance(self.sql, None, error, driver.Error, dialect=connection.dialect) from error
        finally:
            cursor.close()


def column_of(connection: Connection, statement: ClauseElement) -> "array[float]":
    """The numbers that a statement with constant values yields, one a row; no object is kept for a row."""
    constants: Any = statement.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    driver: Any = connection.dialect.dbapi
    cursor: Any = connection.connection.cursor()
    try:
        cursor.execute(str(constants))
        return array("d", chain.from_iterable(cursor))
    except driver.Error as error:
        raise DBAPIError.instance(str(constants), None, error, driver.Error, dialect=connection.dialect) from error
    except TypeError as error:  # SQLite keeps any text in a column of numbers
        raise StorageError(f"the curves hold something that is no number: {error}; restore a backup") from error
    finally:
        cursor.close()


def is_real(connection: Connection, value: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a column of numbers holds one; SQLite keeps anything there."""
    if is_postgresql(connection):
        return value.is_not(None)
    return func.typeof(value).in_(["real", "integer"])


def is_whole(connection: Connection, value: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a column of whole numbers holds one."""
    return value.is_not(None) if is_postgresql(connection) else func.typeof(value) == "integer"


def sqlite_damage(connection: Connection) -> list[str]:
    """The problems that SQLite's own checks report; empty where there are none."""
    whole = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check")]
    rows = connection.exec_driver_sql("PRAGMA foreign_key_check")
    lost = [f"a row of {row[0]} points to a row of {row[2]} that is not there" for row in rows]
    return [text for text in whole if text != "ok"] + lost


def is_postgresql(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def lock_schema(connection: Connection) -> None:
    """Wait until no other process creates or migrates the tables; SQLite uses the file lock around opening instead."""
    if is_postgresql(connection):
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LEDGER_LOCK})
