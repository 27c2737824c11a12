"""Muon for the matrices of hidden layers, AdamW for everything else, as one optimizer.

Muon orthogonalizes a running mean of the gradient by five Newton-Schulz steps (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon/), and its update has the size of AdamW's (Liu et al. 2025,
https://arxiv.org/abs/2502.16982, equation 4: 0.2 times the root of the longer side). So both go with one learning rate.
"""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

from tuner.design.hyperparameters import log_uniform
from tuner.design.optimizers import Groups, OptimizerSetting, OptimizerSpec, ParameterGroup, torch_groups

_MUON, _ADAMW = "muon", "adamw"  # the rules


def _divide(groups: Groups, model: Any) -> Groups:
    """Each group in two: the matrices of hidden layers, and the rest."""
    apart = _apart(model)

    def rule_of(parameter: Any) -> str:
        return _MUON if parameter.ndim == 2 and id(parameter) not in apart else _ADAMW

    divided = []
    for group in groups:
        for rule in (_MUON, _ADAMW):
            own = [parameter for parameter in group["params"] if rule_of(parameter) == rule]
            if own:
                made = ParameterGroup(params=own, rate=group["rate"], decay=group["decay"], rule=rule)
                divided.append(made)
    return divided


def _tells(optimizer: Any) -> str:
    if any(group["rule"] == _MUON for group in optimizer.param_groups):
        return ""
    return (
        "muon is for the matrices of hidden layers, and this model has none to train, so AdamW trains all of it: "
        "embeddings, the last nn.Linear of a model, and weights that are no matrices are AdamW's"
    )


def _apart(model: Any) -> set[int]:
    """The ids of matrices that are no hidden layer's: of embeddings, and of the last nn.Linear in the model's order.

    Muon's authors leave both to AdamW, whatever their shape.
    """
    import torch  # noqa: PLC0415

    modules = [] if model is None else list(model.modules())
    found: list[Any] = [one for one in modules if isinstance(one, torch.nn.Embedding | torch.nn.EmbeddingBag)]
    found += [one for one in modules if isinstance(one, torch.nn.Linear)][-1:]
    return {id(one.weight) for one in found}


@cache
def _muon_with_adamw() -> Any:
    """The class; made by a function, because torch is imported only where something is trained."""
    import torch  # noqa: PLC0415

    class MuonWithAdamW(torch.optim.Optimizer):
        """torch's own Muon and AdamW, each for its groups. Its state is theirs: both write into one."""

        def __init__(self, parts: Mapping[str, Any]) -> None:
            self._parts = dict(parts)
            super().__init__([group for part in self._parts.values() for group in part.param_groups], {})

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for rule, part in self._parts.items():
                part.state = self.state  # it is another object once a state was loaded
                part.param_groups = [group for group in self.param_groups if group["rule"] == rule]
                inspect.unwrap(type(part).step)(part)

    return MuonWithAdamW


def _build(groups: Groups, values: Mapping[str, Any], rate: float, fused: bool) -> Any:
    import torch  # noqa: PLC0415

    decay = values.get("weight_decay", 0.0)
    multiples = {_MUON: 1.0, _ADAMW: values.get("adamw_rate", 1.0)}
    of_rule: dict[str, list[dict[str, Any]]] = {}
    for rule, multiple in multiples.items():
        own = [{**group, "rate": group["rate"] * multiple} for group in groups if group["rule"] == rule]
        of_rule[rule] = [{**one, "rule": rule} for one in torch_groups(own, rate, decay)]  # type: ignore[arg-type]
    parts: dict[str, Any] = {}
    if of_rule[_MUON]:
        parts[_MUON] = torch.optim.Muon(
            of_rule[_MUON],
            lr=rate,
            weight_decay=decay,
            momentum=values.get("momentum", 1.0 - values.get("one_minus_momentum", 0.05)),
            nesterov=bool(values.get("nesterov", True)),
            adjust_lr_fn="match_rms_adamw",
        )
    if of_rule[_ADAMW]:
        parts[_ADAMW] = torch.optim.AdamW(
            of_rule[_ADAMW],
            lr=rate,
            betas=(1.0 - values.get("one_minus_beta1", 0.1), 1.0 - values.get("one_minus_beta2", 0.001)),
            eps=values.get("epsilon", 1e-8),
            weight_decay=decay,
            fused=fused,
        )
    return _muon_with_adamw()(parts)


MUON = OptimizerSpec(
    name="muon",
    settings=(
        OptimizerSetting("momentum"),
        OptimizerSetting("one_minus_momentum", same_as="momentum"),
        OptimizerSetting("nesterov", is_number=False),
        OptimizerSetting("adamw_rate"),
        OptimizerSetting("one_minus_beta1"),
        OptimizerSetting("one_minus_beta2"),
        OptimizerSetting("epsilon"),
        OptimizerSetting("weight_decay", family="regularization"),
    ),
    build=_build,
    divide=_divide,
    tells=_tells,
    slow="its Newton-Schulz steps multiply matrices in bfloat16, which is quick on GPUs and on CPUs made for it",
    ranges={
        "learning_rate": log_uniform(1e-4, 1e-1),
        "one_minus_momentum": log_uniform(0.01, 0.3),
        "adamw_rate": log_uniform(0.1, 10.0),
        "one_minus_beta1": log_uniform(0.02, 0.5),
        "one_minus_beta2": log_uniform(1e-4, 0.1),
        "epsilon": log_uniform(1e-10, 1e-2),
        "weight_decay": log_uniform(1e-4, 1.0),
    },
    state="4 of a hidden layer's matrix, 8 of all else",
    note="for matrices of hidden layers; embeddings, the last `nn.Linear`, vectors and convolutions get AdamW, at "
    "`adamw_rate` times the rate",
)
