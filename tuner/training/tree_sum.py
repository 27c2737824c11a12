"""Sums in a fixed order: a binary tree over the slices of a batch.

Floating-point sums depend on their order. This order is a function of the number of slices alone: not of how many are
computed at a time, nor of how many processes share them. S slices are halved from the top:

    tree(S) = tree(the first half) + tree(the second half)

and where S is odd, the first half has one slice more. So of S slices and W = 2**k processes, with W a divisor of S,
each process has S / W slices that follow one another and are a subtree; the tree over the processes' sums is the rest.
"""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def halves(leaves: range) -> tuple[range, range]:
    """The leaves under the left and the right branch of a node that has at least two."""
    middle = (len(leaves) + 1) // 2
    return leaves[:middle], leaves[middle:]


def tree_sum(leaf: Callable[[int], T], leaves: range, add: Callable[[T, T], T]) -> T:
    """The sum over a node of the tree. Leaves are made in order, each when it is needed.

    leaves: those under the node, `range(S)` for all. add: the sum of a left and a right branch; it may write into both.
    While a leaf is made, the sums of at most ceil(log2 S) branches are kept.
    """
    if len(leaves) == 1:
        return leaf(leaves[0])
    first, second = halves(leaves)
    left = tree_sum(leaf, first, add)
    return add(left, tree_sum(leaf, second, add))
