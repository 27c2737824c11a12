"""Training that is not ours: an own loop, Lightning, the Hugging Face Trainer, a command, with the study around it.

A workload of this kind has one method, `train(trial)`; the `LoopTrial` that it is given is all that it needs. What may
be relied on (the same bits twice, resume, our schedule) is measured in a first look, and recorded with the launch.
"""
