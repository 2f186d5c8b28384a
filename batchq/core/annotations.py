"""What the annotations of a handler's function say, resolved when somebody asks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from batchq.core.result import Result

__all__ = ["either", "hints", "inside", "kind", "listed", "members", "module_of", "values"]

_LISTS: Final = frozenset({list, Sequence, Collection, Iterable})
_WAITED_FOR: Final = frozenset({Awaitable, Coroutine})


def _annotated(function: Callable[..., object]) -> tuple[object, dict[str, Any]]:
    """Return the function that has the annotations, and the names of its module."""
    found: Any = inspect.unwrap(function)
    while isinstance(found, functools.partial):
        found = inspect.unwrap(found.func)
    if not hasattr(found, "__globals__"):  # an object with a __call__
        found = inspect.unwrap(type(found).__call__)
    return found, getattr(found, "__globals__", {})


def module_of(function: Callable[..., object]) -> str:
    """Name the module that the names in the annotations are looked for in."""
    return str(_annotated(function)[1].get("__name__", "?"))


def hints(function: Callable[..., object], names: set[str]) -> dict[str, object]:
    """Resolve some of a function's annotations, and none that nobody asked for."""
    found, globals_ = _annotated(function)
    annotations = getattr(found, "__annotations__", {})
    wanted = {name: hint for name, hint in annotations.items() if name in names}
    of_names = SimpleNamespace(__annotations__=wanted)
    return get_type_hints(of_names, globalns=globals_, include_extras=True)


def kind(type_: object) -> object:
    """Return what a type with arguments is one of; of anything else, itself."""
    return get_origin(type_) or type_


def members(type_: object) -> Sequence[object]:
    """Return the types of a union; of anything else, itself."""
    return get_args(type_) if kind(type_) in (Union, UnionType) else (type_,)


def either(types: Sequence[object]) -> object:
    """Return the union of types; of none, anything."""
    return Union[tuple(types)] if types else Any  # noqa: UP007  # made at run time


def inside(type_: object, box: type) -> object:
    """Return what a `box[T]` holds; of anything else, itself."""
    if kind(type_) is not box:
        return type_
    return next(iter(get_args(type_)), Any)


def listed(annotation: object) -> Sequence[object]:
    """Return what a list of a batch may hold.

    Raises:
        TypeError: it is no list.
    """
    if annotation is Any:
        return (Any,)
    if kind(annotation) not in _LISTS:
        raise TypeError
    return members(next(iter(get_args(annotation)), Any))


def values(returned: object, *, batch: bool) -> list[object]:
    """Return what values a function may give for one job, by its return annotation."""
    found: list[object] = []
    for each in members(returned):
        held = get_args(each)
        if kind(each) in _WAITED_FOR and held:
            found += values(held[-1], batch=batch)
        elif not batch:
            found.append(inside(each, Result))
        elif each is not NoneType:
            answers = [one for one in members(_answer(each)) if not _is_error(one)]
            found += [inside(one, Result) for one in answers]
    return found


def _answer(returned: object) -> object:
    """Return what a batch handler answers for one item: its list's, or its mapping's."""
    is_many = kind(returned) in {*_LISTS, tuple, dict, Mapping}
    held = [each for each in get_args(returned) if each is not Ellipsis]
    return held[-1] if is_many and held else Any


def _is_error(type_: object) -> bool:
    return isinstance(type_, type) and issubclass(type_, BaseException)
