"""How long a trial trains, and at which learning rate at each step. Plain Python, known to everybody.

A *StepBudget* says how many steps every trial of a study takes and where it is evaluated. A *ScheduleFamily*
is what a study file declares (cosine, constant-then-decay, ...); with a budget it becomes a *Schedule*: pieces
of known length whose value at any step is a closed form. `transfer` carries a schedule to a longer run.
"""
