"""What is declared before anything is trained. Plain data, without torch.

A *Campaign* is what a study file declares: one *Workload* (model, data, loss, metrics), its *Sweep* and its
*Rounds*. A round has a *SearchSpace* of *Hyperparameters*; from space, seed and index come its *Points*.
With a step budget a round becomes a *Study*: the *Trials* that are compared with each other.
"""
