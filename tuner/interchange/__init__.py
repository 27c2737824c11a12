"""Studies from elsewhere, and ours for other tools. torch is not needed here.

An *imported* study lives in the Ledger as round 1 of a campaign of its own, so everything that reads records works on
it by name. Whatever had to be decided by rule on the way in is a *note*, said to the person who imports.

imported    a study with its finished trials and notes, and writing it down
cleaning    curves as they were logged: repeated steps, values that are not finite, runs cut short
optuna_in, optuna_space, optuna_out    Optuna's studies
tables_in, table_space, tables_out     CSV and Parquet
"""
