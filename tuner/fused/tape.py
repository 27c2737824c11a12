"""Writes down what torch computes, operation by operation, as a graph that computes it again from other inputs."""

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from tuner.errors import NotFusible
from tuner.fused.graph import FRESH, base_of, writes
from tuner.fused.operations import name_of
from tuner.fused.trial_tensor import TrialTensor
from tuner.training.copy_on_write import address

_ATEN = torch.ops.aten


class Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every ATen operation. Nothing is compiled meanwhile; else torch would import its compiler, in a second."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class Tape(Watching):  # type: ignore[no-untyped-call]
    """While it is active every ATen operation is computed and written down, those of a backward pass too.

    Leaner than `make_fx`, which also works out a description of every value: that takes most of its time.
    """

    def __init__(self, inputs: Sequence[torch.Tensor], once: Sequence[torch.Tensor] = ()) -> None:
        """`once`: those inputs that all trials share; what is computed of them alone is computed once."""
        super().__init__()
        self.graph = Graph()
        self.constants: dict[str, torch.Tensor] = {}
        self._once: set[Node] = set()
        self._given: set[Node] = set()  # values that depend on the inputs; all others are the same at each replay
        self._nodes: dict[int, Node] = {}
        self._alive: list[torch.Tensor] = []  # an id is one tensor's only as long as that tensor lives
        self._last_input: Node | None = None
        self.largest = 0  # bytes of the largest value that was computed, but for what is computed once
        for tensor in inputs:
            self.add_input(tensor)
        self._once |= {self._nodes[id(tensor)] for tensor in once}

    def add_input(self, tensor: torch.Tensor) -> None:
        """Make a tensor an input that each replay is given, after the inputs known so far."""
        name = f"given_{len(self._alive)}"
        if self._last_input is None:
            node = self.graph.placeholder(name)
        else:
            with self.graph.inserting_after(self._last_input):
                node = self.graph.placeholder(name)
        self._last_input = node
        self._given.add(node)
        self._know(tensor, node)

    def finished(self, outputs: Sequence[torch.Tensor]) -> Graph:
        """The graph from the inputs to these outputs; its other values are the tape's constants."""
        self.graph.output([self._node_of(tensor) for tensor in outputs])
        return self.graph

    def forget(self) -> None:
        """Hold what was computed no longer: what stays in the model's template leads here."""
        self._alive.clear()
        self._nodes.clear()

    @property
    def num_bytes(self) -> int:
        """Memory of everything that was computed."""
        return _bytes_of(self._alive)

    @property
    def num_bytes_once(self) -> int:
        """The part of it that does not grow with the number of trials."""
        return _bytes_of([tensor for tensor in self._alive if self._nodes[id(tensor)] in self._once])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = kwargs or {}
        _check_call(func, types, keywords)
        given, named = pytree.tree_map(self._as_node, (tuple(args), dict(keywords)))
        is_constant = func is _ATEN.lift_fresh.default  # torch.tensor(...): the code makes a new one each time
        func = _ATEN.clone.default if is_constant else func
        node = self.graph.call_function(func, given, named)
        node.meta.update({FRESH: True} if is_constant else {})
        depends = not self._given.isdisjoint(node.all_input_nodes)
        if depends:
            self._check(func, args)
            self._given |= {node, *_written(node)}
            self._once |= {node} if self._is_once(node) else set()
        result = func(*args, **keywords)
        if isinstance(result, torch.Tensor):
            if result.layout is not torch.strided:
                raise NotFusible(f"{name_of(func)}: tensors that are not strided, sparse ones say")
            self._know(result, node)
            self.largest = max(self.largest, 0 if node in self._once else result.nbytes)
        elif isinstance(result, list | tuple):
            for place, part in enumerate(result):
                if isinstance(part, torch.Tensor):
                    self._know(part, self.graph.call_function(operator.getitem, (node, place)))
                    self._given |= {self._nodes[id(part)]} if depends else set()
                    self._once |= {self._nodes[id(part)]} if node in self._once else set()
        return result

    def _is_once(self, node: Node) -> bool:
        """Whether nothing that a value is computed of is a trial's own."""
        used = [each for each in node.all_input_nodes if each in self._given]
        return bool(used) and self._once.issuperset(used)

    def _check(self, func: Any, arguments: Any) -> None:
        """Refuse what makes a Python value or a size of the values of tensors: a recording would freeze it."""
        if func is _ATEN._local_scalar_dense.default:
            raise NotFusible("item: the code reads the value of a tensor, which a recording would freeze")
        tags = getattr(func, "tags", ())
        sized = torch.Tag.dynamic_output_shape in tags and any(map(self._is_given, _masks(func, arguments)))
        if sized or torch.Tag.data_dependent_output in tags:
            raise NotFusible(f"{name_of(func)}: the code needs the values of a tensor, which a recording would freeze")

    def _is_given(self, value: Any) -> bool:
        return isinstance(value, torch.Tensor) and self._node_of(value) in self._given

    def _know(self, tensor: torch.Tensor, node: Node) -> None:
        if id(tensor) not in self._nodes:  # else it was written into, and is the same value's place as before
            self._nodes[id(tensor)] = node
            node.meta["layout"] = tensor.shape, tensor.stride(), tensor.dtype
            self._alive.append(tensor)

    def _as_node(self, value: Any) -> Any:
        return self._node_of(value) if isinstance(value, torch.Tensor) else value

    def _node_of(self, tensor: torch.Tensor) -> Node:
        if id(tensor) not in self._nodes:
            name = f"constant_{len(self.constants)}"
            self.constants[name] = tensor
            self._know(tensor, self.graph.get_attr(name))
        return self._nodes[id(tensor)]


def _bytes_of(tensors: Sequence[torch.Tensor]) -> int:
    """Memory in which the values of tensors lie, which may show parts of the same."""
    starts = [address(one) - one.storage_offset() * one.element_size() for one in tensors]
    return sum(dict(zip(starts, (one.untyped_storage().nbytes() for one in tensors), strict=True)).values())


def _check_call(func: Any, types: Any, keywords: Any) -> None:
    """Refuse calls that went past the rules, and random numbers from a generator of the code's own."""
    if keywords.get("generator") is not None:
        raise NotFusible(f"{name_of(func)}: random numbers of a generator that a recording would freeze")
    if TrialTensor in types and func is not _ATEN._local_scalar_dense.default:
        raise NotFusible(f"{name_of(func)}: called where no rule is asked, by TorchScript or code in C++ say")


def _written(node: Node) -> list[Node]:
    """What an operation writes into."""
    return [node.args[0], base_of(node.args[0])] if writes(node) and isinstance(node.args[0], Node) else []


def _masks(func: Any, arguments: Any) -> Any:
    """What decides the size of a result."""
    if func is _ATEN.index.Tensor:
        return [index for index in arguments[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
    return arguments[1:2] if func is _ATEN.masked_select.default else arguments
