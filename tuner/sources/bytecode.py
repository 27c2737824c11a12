"""What code means that has no source to read: typed into an interpreter, made by `exec`, a lambda among arguments.

The digest is of the compiled code without names of files, line numbers and docstrings. It holds for one version of
Python.
"""

import hashlib
from collections.abc import Iterator
from types import CodeType


def code_digest(code: CodeType) -> str:
    """16 hex digits."""
    return hashlib.sha256("\n".join(_parts(code)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _parts(code: CodeType) -> Iterator[str]:
    yield repr((code.co_code.hex(), code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars))
    yield repr((code.co_argcount, code.co_kwonlyargcount, code.co_posonlyargcount, code.co_flags))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant)
        elif isinstance(constant, frozenset):
            yield repr(sorted(map(repr, constant)))
        else:
            yield repr(constant)
