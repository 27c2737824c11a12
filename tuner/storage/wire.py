"""The messages of PostgreSQL's protocol 3.0, as a server reads and writes them.

Source: the PostgreSQL manual, part "Frontend/Backend Protocol", "Message Formats". All numbers are big-endian.
"""

import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

VERSION = 3 << 16
CANCEL, TLS, GSS = 80877102, 80877103, 80877104  # numbers that stand where a start gives its version
_LENGTH = struct.Struct("!i")
_FIELD = struct.Struct("!ihihih")
_MOST_BYTES = 2**30  # of one message: the most that the server takes, too


class HungUp(Exception):
    """The client is gone, or does not speak the protocol."""


class NotTaken(Exception):
    """A message that the client's driver does not send: prepared statements, COPY."""


@dataclass(frozen=True, slots=True)
class Query:
    """One statement, and its parameters as they are bound.

    types: object ids, 0 where the server finds out. simple: text alone; each of the other's messages has an answer.
    """

    sql: bytes
    values: Sequence[bytes | None] = ()
    types: Sequence[int] = ()
    formats: Sequence[int] = ()
    result_format: int = 0
    simple: bool = False


class Messages:
    """What a client sends, message by message."""

    def __init__(self, connection: socket.socket) -> None:
        self._stream = connection.makefile("rb")

    def start(self) -> tuple[int, bytes]:
        """The number and the rest of the first message."""
        data = self._body()
        if len(data) < _LENGTH.size:
            raise HungUp
        return _LENGTH.unpack_from(data)[0], data[_LENGTH.size :]

    def message(self) -> tuple[bytes, bytes]:
        """Kind and body of the next message."""
        return self._exactly(1), self._body()

    def _body(self) -> bytes:
        length = _LENGTH.unpack(self._exactly(_LENGTH.size))[0] - _LENGTH.size
        if not 0 <= length <= _MOST_BYTES:
            raise HungUp
        return self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        try:
            data = self._stream.read(count)
        except OSError as error:
            raise HungUp from error
        if len(data) < count:
            raise HungUp
        return data

    def close(self) -> None:
        self._stream.close()


def message(kind: bytes, *parts: bytes) -> bytes:
    """One message."""
    body = b"".join(parts)
    return kind + _LENGTH.pack(len(body) + _LENGTH.size) + body


def greeting(parameters: dict[str, str], pid: int, secret: int) -> bytes:
    """What a server says to a client that it lets in."""
    told = [message(b"S", _text(name), _text(value)) for name, value in parameters.items()]
    return b"".join([message(b"R", _LENGTH.pack(0)), *told, message(b"K", struct.pack("!iI", pid, secret)), ready("I")])


def older_version() -> bytes:
    """Says to a client of a newer minor version that this is 3.0."""
    return message(b"v", _LENGTH.pack(VERSION), _LENGTH.pack(0))


def ready(status: str) -> bytes:
    """The next query may come. status: I outside a transaction, T in one, E in one that failed."""
    return message(b"Z", status.encode())


def failure(severity: str, code: str, text: str) -> bytes:
    """An error of ours, with an SQLSTATE."""
    fields = {"S": severity, "V": severity, "C": code, "M": text}
    return message(b"E", *(name.encode() + _text(value) for name, value in fields.items()), b"\0")


def failed(fields: dict[str, bytes]) -> bytes:
    """An error of the server, all of whose fields are passed on."""
    return message(b"E", *(name.encode() + value + b"\0" for name, value in fields.items()), b"\0")


def rows(result: Any) -> bytes:
    """The rows of a libpq result, with their description."""
    columns = range(result.nfields)
    description = [
        (result.fname(n) or b"") + b"\0" + _FIELD.pack(
            _signed(result.ftable(n)), result.ftablecol(n), _signed(result.ftype(n)), result.fsize(n), result.fmod(n),
            result.fformat(n),
        )
        for n in columns
    ]  # fmt: skip
    count = struct.pack("!h", len(description))
    said = [message(b"T", count, *description)]
    value: Callable[[int, int], bytes | None] = result.get_value
    for row in range(result.ntuples):
        said.append(message(b"D", count, *[_value(value(row, column)) for column in columns]))
    return b"".join(said)


def completed(status: bytes) -> bytes:
    """A statement is done; status: "UPDATE 3"."""
    return message(b"C", status, b"\0")


def query_of(parse: bytes, bind: bytes) -> Query:
    """The query of a Parse and a Bind message, both without a name. Raises NotTaken for others."""
    name, sql, rest = parse.split(b"\0", 2)
    portal, statement, bound = bind.split(b"\0", 2)
    if name or portal or statement:
        raise NotTaken("prepared statements")
    (number,) = struct.unpack_from("!H", rest)
    types = struct.unpack_from(f"!{number}I", rest, 2)
    formats, at = _shorts(bound, 0)
    (number,) = struct.unpack_from("!H", bound, at)
    values, at = _values(bound, at + 2, number)
    results, _ = _shorts(bound, at)
    if len(set(results)) > 1:
        raise NotTaken("columns of several formats")
    of_each = formats * number if len(formats) == 1 else formats or (0,) * number
    return Query(sql, values, types or (0,) * number, of_each, results[0] if results else 0)


def _shorts(data: bytes, at: int) -> tuple[tuple[int, ...], int]:
    """A list of numbers of two bytes, and where it ends."""
    (count,) = struct.unpack_from("!H", data, at)
    return struct.unpack_from(f"!{count}h", data, at + 2), at + 2 + 2 * count


def _values(data: bytes, at: int, count: int) -> tuple[list[bytes | None], int]:
    values: list[bytes | None] = []
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        values.append(None if length < 0 else data[at : at + length])
        at += max(length, 0)
    return values, at


def _value(value: bytes | None) -> bytes:
    return _LENGTH.pack(-1) if value is None else _LENGTH.pack(len(value)) + value


def _signed(number: int) -> int:
    """An object id has 32 bits without a sign; the field is packed with one."""
    return number - 2**32 if number >= 2**31 else number


def _text(value: str) -> bytes:
    return value.encode() + b"\0"
