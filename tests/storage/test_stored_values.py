"""Every float survives the database, bit for bit; every NaN is the one NaN of Python."""

import math
import sqlite3
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tuner.records import Claim, Measurement, TrialUpdate
from tuner.storage.store import Ledger
from tuner.storage.stored_values import restored, stored

PATTERNS = st.integers(0, 2**64 - 1)
SPECIAL = [-0.0, 0.0, math.nan, math.inf, -math.inf, 5e-324, -5e-324, 1.7976931348623157e308, 0.1 + 0.2, 2.0**53]


def same_bits(one: float, other: float) -> bool:
    return struct.pack("d", one) == struct.pack("d", other) or (math.isnan(one) and math.isnan(other))


@given(PATTERNS)
@example(1 << 63)  # -0.0
@example(0x7FF8000000000000)
@example(0xFFF0000000000001)
@example(0x7FF0000000000000)
@example(1)
def test_every_pattern_of_64_bits_comes_back(pattern: int) -> None:
    (value,) = struct.unpack("d", struct.pack("Q", pattern))
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (kind TEXT NOT NULL, value REAL)")
    connection.execute("INSERT INTO t VALUES (?, ?)", stored(value))
    (row,) = connection.execute("SELECT kind, value FROM t")
    connection.close()
    assert same_bits(restored(*row), value)


def test_sqlite_alone_would_lose_them() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (value REAL)")
    connection.executemany("INSERT INTO t VALUES (?)", [(math.nan,), (-0.0,)])
    (nan,), (zero,) = connection.execute("SELECT value FROM t")
    connection.close()
    assert nan is None
    assert math.copysign(1.0, zero) == 1.0


def test_a_ledger_keeps_them_as_measurements(ledger: Ledger, study_id: int, claim: object) -> None:
    (claimed,) = ledger.claim(study_id, worker="w", lease_seconds=60.0)
    assert isinstance(claimed, Claim)
    measured = [Measurement(step, "validation/loss", value) for step, value in enumerate(SPECIAL)]
    ledger.record([TrialUpdate(claimed.trial_id, claimed.fence, 9, measured)])
    kept = ledger.measurements(study_id)
    assert kept.steps == list(range(len(SPECIAL)))
    assert all(same_bits(one, other) for one, other in zip(kept.values, SPECIAL, strict=True))


@pytest.mark.parametrize("value", SPECIAL)
def test_what_is_not_finite_is_no_number_for_sql(value: float) -> None:
    kind, number = stored(value)
    assert (number is None) == (not math.isfinite(value))
    assert (kind == "finite") == (math.isfinite(value) and not same_bits(value, -0.0))
