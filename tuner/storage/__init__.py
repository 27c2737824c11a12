"""The Ledger: the one record of what was planned, who trains it, and what came out. SQLAlchemy Core, no ORM.

A *Ledger* is opened by URL (`store.open_ledger`): one SQLite file by default, PostgreSQL by `postgresql://...`.
It holds campaigns, studies, trials, measurements and pointers to checkpoint files. A trial is owned by *claim*:
a lease in database time and a *fence* that grows with every claim; a write with an old fence is refused with
everything that came along with it. So a worker that was killed, paused or cut off can neither lose nor double a
result.

schema      the tables, each commented: they can be read without us
numbers     floats that survive the database bit for bit
codec       declarations as JSON, and how two of them differ
engine      opening and guarding a database; `dialects` where SQLite and PostgreSQL differ; `faults` in our words
migrations  schema versions
claims, recording, recovery, reading, studies     the statements, a subject a module
store       the Ledger, which binds them together
"""
