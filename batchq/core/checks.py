"""What values a setting may have: validators that say what is allowed and what was found."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any, TypeVar

import attrs

from batchq.core.numbers import A_WAIT, LONGEST_WAIT, is_number, is_wait
from batchq.errors import OptionError

__all__ = [
    "Validator",
    "attribute_of",
    "check_async",
    "check_function",
    "check_quantity",
    "checked_wait",
    "choice",
    "flag",
    "function",
    "inf_for_none",
    "is_async",
    "quantity",
    "seconds",
    "wait",
    "whole",
]

Validator = Callable[[object, "attrs.Attribute[Any]", object], None]
Choice = TypeVar("Choice", bound=Enum)


def attribute_of(owner: object, name: str, *, takes: int) -> Any:  # noqa: ANN401 - of any type
    """Return what a subclass gave as `name`: a value, a method or a plain function.

    `weigh = lambda item: ...` in the body of a class is no method: it has no place for self.

    Args:
        owner: an object of the subclass.
        name: an attribute that it has.
        takes: how many arguments it is called with, where it is a function [count].
    """
    raw = inspect.getattr_static(type(owner), name)
    plain = inspect.isfunction(raw) and not _is_method(inspect.signature(raw), takes)
    return raw if plain else getattr(owner, name)


def _is_method(signature: inspect.Signature, takes: int) -> bool:
    """Whether a function of a class's body, to be called with so many arguments, wants self."""
    if not _accepts(signature, takes):
        return True
    first = next(iter(signature.parameters.values()), None)
    if first is None or not _accepts(signature, takes + 1):
        return False
    return first.name == "self" or first.kind is inspect.Parameter.VAR_POSITIONAL


def _accepts(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def inf_for_none(value: float | None) -> float:
    """Read no limit as an infinite one."""
    return math.inf if value is None else value


def choice(name: str, kind: type[Choice], value: object) -> Choice:
    """Read one of a few words, or a member of their enum; `_` and `-` are the same.

    Raises:
        OptionError: it is none of them; `name` says of what.
    """
    if isinstance(value, kind):
        return value
    for member in kind:
        if isinstance(value, str) and value.replace("_", "-") == member.value:
            return member
    allowed = ", ".join(str(member.value) for member in kind)
    raise OptionError(f"{name} must be one of {allowed}, got {value!r}")


def whole(minimum: int, *, most: int | None = None, or_none: bool = False) -> Validator:
    """Make an attrs validator for whole numbers from `minimum`, perhaps to `most`."""
    reach = f"from {minimum}" if most is None else f"from {minimum} to {most}"
    top = math.inf if most is None else most

    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if value is None and or_none:
            return
        # bool is an int to Python; batch_size=True is a mistake to everyone else.
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= top:
            end = ", or None" if or_none else ""
            raise OptionError(f"{field.name} must be a whole number {reach}{end}, got {value!r}")

    return check


def check_quantity(
    name: str,
    value: object,
    *,
    wish: str = "a number of seconds",
    above: bool = False,
    or_none: bool = False,
) -> None:
    """Refuse what is no number from 0, or above 0; `wish` says of what.

    Raises:
        OptionError: it is none.
    """
    if value is None and or_none:
        return
    # Not "below": so NaN, which compares false with everything, is refused too.
    if not is_number(value) or not (value > 0 if above else value >= 0):
        least = "above 0" if above else "from 0"
        end = ", or None" if or_none else ""
        raise OptionError(f"{name} must be {wish} {least}{end}, got {value!r}")


def quantity(wish: str, *, above: bool = False, or_none: bool = False) -> Validator:
    """Make an attrs validator for numbers from 0, or above 0; `wish` says of what."""

    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        check_quantity(field.name, value, wish=wish, above=above, or_none=or_none)

    return check


def checked_wait(name: str, value: object, *, above: bool = False, or_none: bool = False) -> float:
    """Read a time that one can wait [s].

    Args:
        name: what it is of, for the message.
        value: what was given.
        above: whether 0 is none.
        or_none: whether None was allowed, too; it says so in the message only.

    Raises:
        OptionError: it is none.
    """
    if not is_wait(value) or (above and not value > 0):
        reach = f"a number of seconds above 0, to {LONGEST_WAIT} (100 years)" if above else A_WAIT
        end = ", or None" if or_none else ""
        raise OptionError(f"{name} must be {reach}{end}, got {value!r}")
    return float(value)


def wait(*, above: bool = False, or_none: bool = False) -> Validator:
    """Make an attrs validator for times that one can wait, from 0, or above 0 [s]."""

    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if value is not None or not or_none:
            checked_wait(field.name, value, above=above, or_none=or_none)

    return check


def seconds(*, above: bool = False, or_none: bool = False) -> Validator:
    """Make an attrs validator for seconds from 0, or above 0."""
    return quantity("a number of seconds", above=above, or_none=or_none)


def flag(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Check a setting that is on or off."""
    if not isinstance(value, bool):
        raise OptionError(f"{field.name} must be True or False, got {value!r}")


def function(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Check a setting that is a plain function, or None."""
    check_function(field.name, value)


def check_function(name: str, value: object) -> None:
    """Refuse what is neither a plain function nor None."""
    if value is None:
        return
    if not callable(value):
        raise OptionError(f"{name} must be a function or None, got {value!r}")
    if is_async(value):
        raise OptionError(f"{name} must be a plain function, got the async {value!r}")


def check_async(what: str, function: object) -> None:
    """See that calling `function` gives something to await.

    Raises:
        TypeError: it does not; the message begins with `what`.
    """
    of_instances = isinstance(function, type)  # a class with such a method makes an object
    if of_instances or not is_async(function):
        raise TypeError(f"{what} must be an async function, got {function!r}")


def is_async(function: object) -> bool:
    """Whether it is an async function, an object that is called like one, or a partial of it."""
    inner = function
    while isinstance(inner, partial):
        inner = inner.func
    call = getattr(inner, "__call__", None)  # noqa: B004 - objects may be async too
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(call)
