"""Many trials as one stacked model, with the same bits as each alone.

The user's module and loss run on trial tensors: each shows the shape of one trial and holds all values, `[K, ...]`.
Every torch function they meet is run once for all trials, by a rule that keeps the bits of the single run; where no
rule is known, by a loop over the trials for that operation alone. What that does is recorded once per
form of batch, forward and backward, into a flat graph that is then replayed without autograd. A comparison with the
trial alone, bit for bit, decides whether a group may train like that at all.

`trial_tensor` and `operations` are the idea; `rules_*` hold how each kind of operation is run; `stacking` makes one
model of K, which `likeness` allows; `recording` makes the graph, on a `tape`; `group` is the state of K trials;
`engine` is the door to it.

What would go wrong silently is refused by name: `tape` and `counting` find what a recording would freeze,
`likeness` what one model cannot stand for, `making` the rest by a comparison. `obstacles` tells such reasons from
the machine's.
"""
