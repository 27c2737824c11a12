"""Studies of other tools read into the Ledger, and studies of the Ledger written for other tools; without torch.

An *imported* study lives in the Ledger as round 1 of a campaign of its own, so everything that reads records works on
it by name. Each decision that the import makes by a rule is a *note*, which the person who imports sees.

imported    a study with its finished trials and notes, and how it is written into the Ledger
cleaning    curves as they were logged: repeated steps, values that are not finite, runs cut short
optuna_in, optuna_space, optuna_out    Optuna's studies
tables_in, table_space, tables_out     CSV and Parquet
"""
