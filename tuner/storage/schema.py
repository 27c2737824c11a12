"""The tables. Times are seconds since 1970 by the database's clock; JSON is text, so that floats stay exact."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

from tuner.records import State

metadata = MetaData()
_STATES = ", ".join(f"'{state.value}'" for state in State)


def _number(nullable: bool = False) -> tuple[Column[str], Column[float | None]]:
    """A float as (kind, value); see `numbers`."""
    return (
        Column("value_kind", Text, nullable=nullable, comment="'finite', or the value itself: nan, inf, -inf, -0.0"),
        Column("value", Double, nullable=True, comment="NULL for nan, inf and -inf"),
    )


schema_version = Table(
    "schema_version",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("applied", Double, nullable=False),
    comment="the newest row is the version of these tables",
)

storage = Table(
    "storage",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, comment="1: there is one row"),
    Column(
        "identity", Text, nullable=False, comment="random; checkpoint folders name the storage they belong to by it"
    ),
    Column("copy_of", Text, comment="identity of the storage that this is a copy of; NULL: it is none, or adopted"),
    Column("checkpoints", Text, comment="default checkpoint folder, beside the SQLite file; NULL: not chosen yet"),
    Column(
        "generation",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="commands that claimed a checkpoint folder",
    ),
    Column("created", Double, nullable=False),
    comment="what this database is; no row: a restored dump, which is a copy",
)

campaign = Table(
    "campaign",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created", Double, nullable=False),
    comment="what a study file declares, by name",
)

study = Table(
    "study",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("campaign_id", ForeignKey("campaign.id"), nullable=False),
    Column("name", Text, nullable=False, comment="sweep, round-1, ..."),
    Column("kind", Text, nullable=False, comment="sweep, round, adoption or exploitation"),
    Column("round", Integer, comment="counted from 1; NULL for a sweep"),
    Column("declaration", Text, nullable=False, comment="JSON of design.study.Study"),
    Column("fingerprint", Text, nullable=False, comment="digest of code and data at the first start"),
    Column("identity", Text, comment="JSON: what the fingerprint stands for, by part; NULL: made by tuner 0.1"),
    Column("created", Double, nullable=False),
    UniqueConstraint("campaign_id", "name"),
    comment="a search space, a budget and a number of points",
)

trial = Table(
    "trial",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("study.id"), nullable=False),
    Column("number", Integer, nullable=False, comment="counted from 0 in its study"),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, comment="why it is infeasible, failed or cancelled"),
    Column("point", Text, nullable=False, comment="JSON: hyperparameter to value, in declared order"),
    Column("seed", BigInteger, nullable=False, comment="initialization and dropout; 63 bits"),
    Column("data_seed", BigInteger, nullable=False, comment="order of the examples; 63 bits"),
    Column("schedule", Text, nullable=False, comment="JSON of budget.schedules.Schedule"),
    Column("origin", Text, nullable=False, comment="where the point came from"),
    Column("shape_group", Text, nullable=False, comment="trials of one group can be trained as one stacked model"),
    Column("step", BigInteger, nullable=False, comment="the last committed step"),
    Column(
        "farthest", BigInteger, nullable=False, server_default="0", comment="the farthest step committed and not lost"
    ),
    Column("attempt", Integer, nullable=False, comment="claims since `farthest` grew, without those given back"),
    Column("fence", BigInteger, nullable=False, comment="grows with every claim; an older one may not write"),
    Column("worker", Text, comment="the owner, by its name (see living)"),
    Column("lease_seconds", Double, comment="what a renewal adds to the database's clock"),
    Column("lease_until", Double, comment="a RUNNING trial past this is anybody's"),
    Column("numerics", Text, comment="what decides the bits besides the declaration"),
    Column("pins", Text, nullable=False, server_default="[]", comment="JSON: steps after which it leaves a trunk"),
    Column("inherited_steps", BigInteger, nullable=False, server_default="0", comment="taken over and not trained"),
    Column("inherited_from", Integer, comment="id of the trial that trained them"),
    Column("parameter_groups", Text, comment="JSON: the groups of its parameters; NULL: not recorded"),
    Column("started", Double, comment="first claim"),
    Column("finished", Double),
    Column("trained_seconds", Double, comment="in which it was trained; NULL: not recorded"),
    UniqueConstraint("study_id", "number"),
    CheckConstraint(f"state IN ({_STATES})", name="trial_state_is_known"),
    CheckConstraint("state <> 'running' OR lease_until IS NOT NULL", name="trial_running_has_lease"),
    comment="one point and its seeds, trained for the whole budget",
)
Index("trial_by_state", trial.c.study_id, trial.c.state, trial.c.number)

metric = Table(
    "metric",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True, comment="split/metric, like validation/loss"),
    comment="names of metrics, stored once",
)

measurement = Table(
    "measurement",
    metadata,
    Column("trial_id", ForeignKey("trial.id"), primary_key=True),
    Column("metric_id", ForeignKey("metric.id"), primary_key=True),
    Column("step", BigInteger, primary_key=True, comment="after so many updates"),
    *_number(),
    sqlite_with_rowid=False,
    comment="training curves: one value of one metric at one step",
)

checkpoint_file = Table(
    "checkpoint_file",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("path", Text, nullable=False, unique=True, comment="relative to the checkpoint folder"),
    Column("digest", Text, nullable=False, comment="sha256 of the file"),
    Column("num_bytes", BigInteger, nullable=False),
    comment="files that checkpoints point to; what is not listed here may be deleted",
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("trial_id", ForeignKey("trial.id"), primary_key=True),
    Column("kind", Text, primary_key=True, comment="latest, best or trunk; shard-1 and on"),
    Column("step", BigInteger, primary_key=True),
    Column("position", SmallInteger, nullable=False, comment="order in which the trainer named them"),
    Column("file_id", ForeignKey("checkpoint_file.id"), nullable=False, index=True),
    Column("member", Text, nullable=False, comment="which of the trials that share the file"),
    *_number(nullable=True),
    Column("prefix_base", Text, comment="digest of all that decides the state but the schedule; NULL: nobody's start"),
    Column("prefix_path", Text, comment="digest of the learning rates and evaluations up to the step"),
    Column("prefix_numerics", Text, comment="the Numerics of these steps"),
    Column("base_id", Integer, comment="id of the file of frozen parameters that it leaves out; NULL: it is whole"),
    comment="saved states of a trial; the value is the selection metric there",
)
Index("checkpoint_by_prefix", checkpoint.c.prefix_base)

launch = Table(
    "launch",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("study.id"), nullable=False, index=True),
    Column("started", Double, nullable=False),
    Column("command", Text, nullable=False),
    Column("revision", Text, nullable=False, comment="JSON: git revision, whether and how it was changed"),
    Column("environment", Text, nullable=False, comment="JSON: versions, host, threads, numerics"),
    Column("worker", Text, nullable=False),
    comment="each time somebody started to work on a study",
)

conclusion = Table(
    "conclusion",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("campaign_id", ForeignKey("campaign.id"), nullable=False),
    Column("study_id", ForeignKey("study.id")),
    Column("kind", Text, nullable=False),
    Column("data", Text, nullable=False, comment="JSON"),
    Column("created", Double, nullable=False),
    comment="what was concluded from the records; the newest of a kind holds",
)
Index("conclusion_by_kind", conclusion.c.campaign_id, conclusion.c.kind)
