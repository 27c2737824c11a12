"""The search space of a round: hyperparameters with their conditions, and what is fixed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tuner.design.adapters import ALPHAS
from tuner.design.hyperparameters import (
    OF_CAPTIONS,
    REGULARIZERS,
    SHARES_OF_CAPTIONS,
    Choice,
    Condition,
    Constant,
    Domain,
    Family,
    Hyperparameter,
    Range,
    Value,
    fulfils,
)
from tuner.design.names import Name, refuse_name
from tuner.design.optimizers import OPTIMIZERS, default_family
from tuner.errors import DeclarationError

_CAPTIONS = "captions"  # what a study with and without captions calls the choice, and how it says without
_WITHOUT = (None, False, "no", "none", "off", "without")


@dataclass(frozen=True, slots=True)
class Branches:
    """Hyperparameters that exist only for one value of their parent; made by `branches`."""

    children: tuple[tuple[str, tuple[tuple[str, object], ...]], ...]


def branches(**children: dict[str, object]) -> Branches:
    """A choice with hyperparameters of its own for each value.

    `optimizer=branches(sgd={"learning_rate": log_uniform(1e-3, 10)}, adamw={"learning_rate": ...})` declares
    `optimizer`, `sgd.learning_rate` and `adamw.learning_rate`; a point has only those of its own branch (B13).
    """
    if len(children) < 2:
        raise DeclarationError(f"branches needs at least two values, got {list(children)}")
    return Branches(tuple((value, tuple(inner.items())) for value, inner in children.items()))


@dataclass(frozen=True, slots=True, init=False)
class SearchSpace:
    """What varies (`hyperparameters`, in declared order) and what does not (`fixed`: name and constant).

    `SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), dropout=uniform(0, 0.5), momentum=0.9)`.
    Raises DeclarationError for a budget or a seed among the names, and for anything that is no range.
    """

    hyperparameters: tuple[Hyperparameter, ...]
    fixed: tuple[tuple[str, Constant], ...]

    def __init__(self, **declared: object) -> None:
        varied: list[Hyperparameter] = []
        constants: list[tuple[str, Constant]] = []
        for name, what in declared.items():
            for item in _declared(name, what):
                if isinstance(item, Hyperparameter):
                    varied.append(item)
                else:
                    constants.append(item)
        self._set(tuple(varied), tuple(constants))
        self._refuse_ambiguity()
        self._refuse_without_captions()

    @classmethod
    def of(
        cls, hyperparameters: tuple[Hyperparameter, ...], fixed: tuple[tuple[str, Constant], ...] = ()
    ) -> "SearchSpace":
        """The space of parts that were declared before (read from the Ledger, narrowed, widened)."""
        space = cls()
        space._set(hyperparameters, fixed)
        return space

    def _set(self, hyperparameters: tuple[Hyperparameter, ...], fixed: tuple[tuple[str, Constant], ...]) -> None:
        names = [hyperparameter.name for hyperparameter in hyperparameters] + [name for name, _ in fixed]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise DeclarationError(f"declared twice in one search space: {', '.join(doubled)}")
        object.__setattr__(self, "hyperparameters", hyperparameters)
        object.__setattr__(self, "fixed", fixed)

    def __iter__(self) -> Iterator[Hyperparameter]:
        return iter(self.hyperparameters)

    def __len__(self) -> int:
        return len(self.hyperparameters)

    def __getitem__(self, name: str) -> Hyperparameter:
        for hyperparameter in self.hyperparameters:
            if hyperparameter.name == name:
                return hyperparameter
        raise DeclarationError(f"no hyperparameter {name!r} varies here; there are: {', '.join(h.name for h in self)}")

    @property
    def optimizers(self) -> list[Value]:
        """The optimizers that the space fixes or varies; none where it leaves that to the campaign."""
        declared = [constant.value for name, constant in self.fixed if name == "optimizer"]
        for hyperparameter in self.hyperparameters:
            if hyperparameter.name == "optimizer" and isinstance(hyperparameter.domain, Choice):
                declared += hyperparameter.domain.choices
        return declared

    @property
    def batch_sizes(self) -> tuple[Value, ...]:
        """The batch size that the space fixes, or None where trials differ; empty where the workload says it."""
        fixed = {Name.of(name): one.value for name, one in self.fixed if Name.of(name).short == "batch_size"}
        varied = any(hyperparameter.short_name == "batch_size" for hyperparameter in self)
        return (None,) if varied or any(name.branch for name in fixed) else tuple(fixed.values())

    def values_at(self, units: tuple[float, ...]) -> dict[str, Value]:
        """The values of the hyperparameters that exist at a position in the unit cube, and the fixed ones.

        `units`: one number in [0, 1] for every hyperparameter, in declared order; those of other branches are
        left out.
        """
        unit = dict(zip([hyperparameter.name for hyperparameter in self], units, strict=True))
        return self.values_by(lambda hyperparameter: hyperparameter.domain.value_at(unit[hyperparameter.name]))

    def values_by(self, value_of: Callable[[Hyperparameter], Value]) -> dict[str, Value]:
        """A value for every hyperparameter that exists, parents first, and the fixed ones of the same branches."""
        known = {name: constant.value for name, constant in self.fixed}  # a parent may be fixed, too
        drawn: dict[str, Value] = {}
        for hyperparameter in self.hyperparameters:
            if hyperparameter.condition is None or _holds(hyperparameter.condition, known):
                known[hyperparameter.name] = drawn[hyperparameter.name] = value_of(hyperparameter)
        for name, constant in self.fixed:
            condition = self._condition(name)
            if condition is None or _holds(condition, known):
                drawn[name] = constant.value
        return drawn

    def _condition(self, name: str) -> Condition | None:
        """Where a hyperparameter or a fixed value exists: the parent and its value; None: everywhere."""
        for hyperparameter in self.hyperparameters:
            if hyperparameter.name == name:
                return hyperparameter.condition
        value = Name.of(name).branch
        if not value:
            return None
        parents = self._parents(value)
        return (parents[0] if parents else "", value)  # the parent may be fixed at another value by now

    def _parents(self, value: str) -> list[str]:
        """The names that can take the value; with more than one, a fixed value inside its branch would be ambiguous."""
        varied = [h.name for h in self.hyperparameters if isinstance(h.domain, Choice) and value in h.domain.choices]
        return varied + [name for name, constant in self.fixed if constant.value == value]

    def _refuse_ambiguity(self) -> None:
        """`point["learning_rate"]` must mean one thing: no short name exists twice at the same point (B13)."""
        names = [hyperparameter.name for hyperparameter in self.hyperparameters] + [name for name, _ in self.fixed]
        conditions: dict[str, list[tuple[str, Condition | None]]] = {}
        for name in names:
            value = Name.of(name).branch
            if value and len(self._parents(value)) > 1:
                raise DeclarationError(
                    f"{name} exists for the value {value!r}, which {' and '.join(self._parents(value))} can both take; "
                    "give the branches values of their own"
                )
            conditions.setdefault(Name.of(name).short, []).append((name, self._condition(name)))
        for short, declared in conditions.items():
            parents = {condition and condition[0] for _, condition in declared}
            if len(declared) > 1 and (len(parents) > 1 or None in parents):
                raise DeclarationError(
                    f"{short} can exist twice at one point: {', '.join(name for name, _ in declared)} (B13); "
                    "declare it in every branch of one parent, or once outside the branches"
                )

    def _refuse_without_captions(self) -> None:
        """A hyperparameter of captions must not exist where there are none: it would change nothing (C20)."""
        declared = {h.name: h.domain.choices for h in self.hyperparameters if isinstance(h.domain, Choice)}
        without = [one for one in declared.get(_CAPTIONS, ()) if one in _WITHOUT]
        without += [one.value for name, one in self.fixed if name == _CAPTIONS and one.value in _WITHOUT]
        for name in [*(h.name for h in self.hyperparameters), *(name for name, _ in self.fixed)]:
            given, condition = Name.of(name), self._condition(name)
            if given.short in OF_CAPTIONS and any(condition in (None, (_CAPTIONS, one)) for one in without):
                raise DeclarationError(
                    f"{name} would change nothing where {_CAPTIONS} = {without[0]} (C20): declare it for trials with "
                    f"captions only, {_CAPTIONS}=branches(yes={{{given.short!r}: ...}}, no={{}})"
                )

    def off_values(self) -> dict[str, Value]:
        """The off value of every regularizer and augmentation declared here, by canonical name (A22, A23).

        Raises DeclarationError naming those that cannot be switched off.
        """
        off: dict[str, Value] = {}
        missing: list[str] = []
        declared = [(h.name, h.family, _off_of(h.domain)) for h in self.hyperparameters]
        declared += [(name, c.family, (c.has_off, c.off)) for name, c in self.fixed]
        for name, family, (has_off, value) in declared:
            if family in ("regularization", "augmentation"):
                if has_off:
                    off[name] = value
                else:
                    missing.append(f"{name} ({family})")
        if missing:
            raise DeclarationError(
                f"a sweep trains without regularization and augmentation, but {', '.join(missing)} has no off "
                "value (A22, A23); declare off=..., the value that switches it off"
            )
        return off

    def widened(self, name: str, low: float, high: float) -> "SearchSpace":
        """The same space with another range for one hyperparameter."""
        widened = self[name]
        if not isinstance(widened.domain, Range):
            raise DeclarationError(f"{name} is a choice and has no range to widen; declare more choices")
        return self._with(replace(widened, domain=replace(widened.domain, low=low, high=high)))

    def with_choices(self, name: str, choices: tuple[Value, ...]) -> "SearchSpace":
        """The same space with other choices for one hyperparameter."""
        old = self[name]
        if not isinstance(old.domain, Choice):
            raise DeclarationError(f"{name} is a range and has no choices; widen it")
        return self._with(replace(old, domain=replace(old.domain, choices=choices)))

    def _with(self, changed: Hyperparameter) -> "SearchSpace":
        parts = tuple(changed if one.name == changed.name else one for one in self.hyperparameters)
        return SearchSpace.of(parts, self.fixed)


def _declared(name: str, what: object) -> Iterator[Hyperparameter | tuple[str, Constant]]:
    refuse_name(name)
    if isinstance(what, Branches):
        values = tuple(value for value, _ in what.children)
        yield _hyperparameter(name, Choice(values))
        for value, children in what.children:
            for child, domain in children:
                for item in _declared(child, domain):
                    yield _under(name, value, item)
    elif isinstance(what, Range | Choice):
        yield _hyperparameter(name, what)
    elif isinstance(what, None | bool | int | float | str):
        yield name, _known_constant(name, Constant(what))
    elif isinstance(what, Constant):
        yield name, _known_constant(name, what)
    else:
        raise DeclarationError(
            f"{name} is declared as {type(what).__name__}; a search space takes uniform(...), log_uniform(...), "
            "integers(...), choice(...), branches(...) or a plain value"
        )


def _under(
    parent: str, value: str, item: Hyperparameter | tuple[str, Constant]
) -> Hyperparameter | tuple[str, Constant]:
    if isinstance(item, Hyperparameter):
        if item.condition is not None:
            raise DeclarationError(f"branches inside branches are not supported: {item.name} under {value}")
        family = item.family or _family_under(parent, value, item.name)
        return replace(item, name=str(Name(value, item.name)), family=family, condition=(parent, value))
    family = item[1].family or _family_under(parent, value, item[0])
    return str(Name(value, item[0])), replace(item[1], family=family)


def _family_under(parent: str, value: str, name: str) -> Family | None:
    """The family of a setting in the branch of an optimizer, a plugin's too; None for every other name."""
    setting = OPTIMIZERS.get(value).setting(name) if parent == "optimizer" and value in OPTIMIZERS else None
    return setting.family if setting else None


def _hyperparameter(name: str, domain: Domain) -> Hyperparameter:
    family = domain.family or default_family(name)
    if name in ALPHAS:
        domain = _with_reals(domain)
    if name in OF_CAPTIONS:
        _check_captions(name, domain)
    if name in (*REGULARIZERS, *SHARES_OF_CAPTIONS) and not _off_of(domain)[0]:
        domain = replace(domain, off=0.0) if isinstance(domain, Range) else replace(domain, off=0.0, has_off=True)
    if name == "optimizer" and isinstance(domain, Choice):
        family = "optimizer"
    return Hyperparameter(name, domain, family)


def _with_reals(domain: Domain) -> Domain:
    """A domain of real numbers: whole ones would part trials that can be trained together."""
    if isinstance(domain, Range):
        return replace(domain, low=float(domain.low), high=float(domain.high), integer=False)
    return replace(domain, choices=tuple(map(_as_real, domain.choices)), off=_as_real(domain.off))


def _as_real(value: Value) -> Value:
    return float(value) if type(value) is int else value


def _known_constant(name: str, constant: Constant) -> Constant:
    family = constant.family or default_family(name)
    if name in ALPHAS:
        constant = replace(constant, value=_as_real(constant.value))
    if name in OF_CAPTIONS:
        _check_captions(name, constant)
    if name in (*REGULARIZERS, *SHARES_OF_CAPTIONS) and not constant.has_off:
        return Constant(constant.value, family, 0.0, True)
    return replace(constant, family=family)


def _check_captions(name: str, declared: Domain | Constant) -> None:
    """Raise DeclarationError for what no share of captions, or number of first tags that stay, can be."""
    if isinstance(declared, Range):
        values: tuple[Value, ...] = (declared.low, declared.high)
    else:
        values = declared.choices if isinstance(declared, Choice) else (declared.value,)
    if name in SHARES_OF_CAPTIONS:
        wrong = [one for one in values if not (isinstance(one, int | float) and 0 <= one <= 1)]
        what, word = "a share of captions, from 0 to 1", "uniform(0, 1)"
    else:
        whole = not isinstance(declared, Range) or declared.integer
        wrong = [one for one in values if not (whole and type(one) is int and one >= 0)]
        what, word = "the number of first tags that stay, whole and from 0 on", "integers(0, 2)"
    if wrong:
        raise DeclarationError(
            f"{name} is {what}, got {wrong[0]!r}; declare {word}, a choice of such values, or one of them"
        )


def _holds(condition: Condition, drawn: dict[str, Value]) -> bool:
    parent = condition[0]
    return parent in drawn and fulfils(condition, drawn[parent])


def _off_of(domain: Domain) -> tuple[bool, Value]:
    if isinstance(domain, Range):
        return domain.off is not None, domain.off
    return domain.has_off, domain.off
