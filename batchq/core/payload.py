"""What a handler takes and gives, as its function's signature says it: to JSON and back.

Rule 1: JSON by msgspec, never pickle, never an import path. Strict: "5" is no 5.
Rule 2: what is to be stored was read back first, as the type that its handler will read
it as. So a wrong payload is an error of whoever enqueues it.
Rule 3: annotations are resolved at first use, when the names in them are defined.

    enqueue(42, lang="pt") ──bind──> {"user_id": 42, "lang": "pt"} ──encode──> bytes
                                                                                 │
    function(user_id=42, lang="pt") <── the same dict <────decode────────────────┘
"""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import attrs
import msgspec

from batchq.core.annotations import (
    either,
    hints,
    inside,
    kind,
    listed,
    members,
    module_of,
    values,
)
from batchq.core.depth import MAX_DEPTH, depth
from batchq.core.finite import not_finite
from batchq.core.job import Job
from batchq.errors import PayloadError

__all__ = ["MAX_PAYLOAD", "Signature"]

S = TypeVar("S")
D = TypeVar("D")

MAX_PAYLOAD: Final = 1_048_576  # 1 MiB [bytes]

_STARS: Final = frozenset({inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD})

_encode: Final = msgspec.json.Encoder().encode


@attrs.define(eq=False)
class Signature:
    """How a handler's function takes payloads and gives values.

    Make one with `of_call` or `of_batch`. Every method that reads annotations raises
    `TypeError` where they name what is not defined or mean nothing as JSON; `resolve`
    asks for that.

    Attributes:
        handler: its name, for messages.
    """

    handler: str
    _function: Callable[..., object] = attrs.field(repr=False)
    _shape: inspect.Signature
    _batch: bool

    @classmethod
    def of_call(cls, function: Callable[..., object], *, handler: str) -> Signature:
        """Read a plain handler's function: its payload is an object of its arguments.

        Raises:
            TypeError: it has `*args`, `**kwargs` or a positional-only parameter.
        """
        shape = _shape_of(function, handler)
        for parameter in shape.parameters.values():
            if parameter.kind is inspect.Parameter.POSITIONAL_ONLY or parameter.kind in _STARS:
                raise TypeError(
                    f"{handler} cannot be a handler: its parameter {parameter} has no name in"
                    f" a stored job; use parameters that can be passed by name"
                )
        return cls(handler, function, shape, batch=False)

    @classmethod
    def of_batch(cls, function: Callable[..., object], *, handler: str) -> Signature:
        """Read a batch handler's function: its payload is one item of the list it takes.

        Raises:
            TypeError: it does not take exactly one argument, the list. (Others may have
                defaults, as those have that `functools.partial` fills in.)
        """
        shape = _shape_of(function, handler)
        parameters = list(shape.parameters.values())
        stars = [each for each in parameters if each.kind in _STARS]
        needed = [each for each in parameters[1:] if each.default is each.empty]
        by_name = [each for each in parameters[:1] if each.kind is each.KEYWORD_ONLY]
        if not parameters or stars or needed or by_name:
            raise TypeError(
                f"{handler} cannot be a batch handler: it must take exactly one argument, the"
                f" list of items, but its signature is {shape}"
            )
        return cls(handler, function, shape, batch=True)

    @property
    def wants_jobs(self) -> bool:
        """Whether a batch handler is annotated to take `Job`s instead of bare payloads."""
        return self._items[1]

    @property
    def module(self) -> str:
        """The module that the names in the annotations are looked for in."""
        return module_of(self._function)

    def resolve(self) -> None:
        """Resolve the annotations now, rather than at first use.

        Raises:
            TypeError: they name what is not defined, or what is no type of JSON.
        """
        _ = self._decode

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, object]:
        """Return the payload that stands for a call of a plain handler.

        Only what was passed: an argument left out takes the default that the function has
        when the job runs.

        Raises:
            PayloadError: no call of the function takes these arguments.
        """
        try:
            return dict(self._shape.bind(*args, **kwargs).arguments)
        except TypeError as error:
            raise PayloadError(
                f"{self.handler} cannot be called so: {error}; it takes {self._shape}"
            ) from None

    def encode(self, payload: object) -> bytes:
        """Return a payload as it is stored, checked.

        Raises:
            PayloadError: it cannot be JSON, is larger than `MAX_PAYLOAD` or nested deeper
                than `MAX_DEPTH`, or is not what the handler takes; the message says where.
        """
        decode = self._decode
        what = "cannot take this payload"
        try:  # as _written and _tried, without their calls: it is done for every job
            content = _encode(payload)
            # So few bytes can't be nested too deep. (`in` takes longer than to count.)
            if len(content) > 2 * MAX_DEPTH or content.count(b"null"):
                self._look_at(content, payload, what)
            decode(content)
        except PayloadError:
            raise
        except Exception as error:
            raise self._refused(error, what) from error
        return content

    def decode(self, content: bytes) -> object:
        """Return the payload of a stored job: a dict of arguments; of a batch, one item.

        Raises:
            PayloadError: it is not what the handler takes.
        """
        found = self._tried(self._decode, content, "cannot take this payload")
        if self._batch:
            return found
        values = zip(self._shape.parameters, msgspec.structs.astuple(found), strict=True)
        return {name: value for name, value in values if value is not msgspec.UNSET}

    def encode_value(self, value: object) -> bytes | None:
        """Return a result's value as it is stored; None stays None.

        Raises:
            PayloadError: it cannot be JSON, is larger than `MAX_PAYLOAD` or nested deeper
                than `MAX_DEPTH`.
        """
        return None if value is None else self._written(value, "returned what cannot be kept")

    def decode_value(self, content: bytes | None) -> Any:  # noqa: ANN401  # typed by the handle
        """Return a stored value as the function's return annotation says.

        One that is missing, or cannot be resolved, says nothing: plain JSON.

        Raises:
            PayloadError: it is not what the annotation says.
        """
        if content is None:
            return None
        return self._tried(self._decode_value, content, "gave a value that it says it does not")

    def _written(self, value: object, what: str) -> bytes:
        content = self._tried(_encode, value, what)
        self._look_at(content, value, what)
        return content

    def _look_at(self, content: bytes, value: object, what: str) -> None:
        if len(content) > MAX_PAYLOAD:
            raise PayloadError(
                f"{self.handler} {what}: it is {len(content)} bytes of JSON;"
                f" at most {MAX_PAYLOAD} are stored"
            )
        if (levels := depth(content)) > MAX_DEPTH:
            raise PayloadError(
                f"{self.handler} {what}: it is nested {levels} deep; at most {MAX_DEPTH} levels"
                " are stored"
            )
        # msgspec writes NaN and inf as null, which may well be legal in their place.
        if b"null" in content and (path := not_finite(value)) is not None:
            raise PayloadError(
                f"{self.handler} {what}: JSON has no NaN and no infinity - at `{path}`"
            )

    def _tried(self, convert: Callable[[S], D], value: S, what: str) -> D:
        try:
            return convert(value)
        except Exception as error:
            raise self._refused(error, what) from error

    def _refused(self, error: Exception, what: str) -> PayloadError:
        # A type's own checks (__post_init__, validators) are the user's code, and may
        # raise anything.
        if isinstance(error, RecursionError):
            return PayloadError(
                f"{self.handler} {what}: it is nested deeper than Python can go from here"
                f" ({error}); at most {MAX_DEPTH} levels are stored"
            )
        said = traceback.TracebackException(type(error), error, None)
        return PayloadError(f"{self.handler} {what}: {said}")

    @functools.cached_property
    def _decode(self) -> Callable[[bytes], Any]:
        type_ = self._items[0] if self._batch else self._arguments()
        try:
            return msgspec.json.Decoder(type_).decode
        except NameError as error:
            raise self._undefined(error) from error
        except TypeError as error:
            raise TypeError(f"{self.handler} takes what is no type of JSON: {error}") from error

    @functools.cached_property
    def _decode_value(self) -> Callable[[bytes], Any]:
        try:
            returned = hints(self._function, {"return"}).get("return", Any)
            type_ = either(values(returned, batch=self._batch))
            return msgspec.json.Decoder(type_).decode
        except Exception:  # an annotation is the user's code
            return msgspec.json.Decoder().decode

    @functools.cached_property
    def _items(self) -> tuple[object, bool]:
        """The type of a batch's payloads, and whether they are wanted as jobs."""
        if not self._batch:
            return Any, False
        name = next(iter(self._shape.parameters))
        annotation = self._parameters().get(name, Any)
        try:
            items = [item for each in members(annotation) for item in listed(each)]
        except TypeError:
            raise TypeError(
                f"{self.handler} takes a list of items: annotate {name!r} as list[Item] or"
                f" list[Job[Item]], not {annotation!r}"
            ) from None
        payloads = [inside(item, Job) for item in items]
        return either(payloads), any(kind(item) is Job for item in items)

    def _arguments(self) -> type[msgspec.Struct]:
        """Make a type for the object of a plain handler's arguments.

        Its own field names are numbers of a kind, since not every parameter's name can be
        a struct's.
        """
        hints = self._parameters()
        fields = [
            (
                f"a{number}",
                hints.get(name, Any),
                msgspec.field(name=name)
                if parameter.default is parameter.empty
                else msgspec.field(name=name, default=msgspec.UNSET),
            )
            for number, (name, parameter) in enumerate(self._shape.parameters.items())
        ]
        return msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)

    def _parameters(self) -> dict[str, object]:
        try:
            return hints(self._function, set(self._shape.parameters))
        except NameError as error:
            raise self._undefined(error) from error
        except Exception as error:  # an annotation is the user's code
            said = f"{type(error).__name__}: {error}"
            raise TypeError(f"{self.handler} has annotations that mean nothing: {said}") from error

    def _undefined(self, error: NameError) -> TypeError:
        return TypeError(
            f"{self.handler} is annotated with {error.name!r}, which is not defined: import or"
            f" define it at the top level of its module, and not for type checkers only"
        )


def _shape_of(function: Callable[..., object], handler: str) -> inspect.Signature:
    """Return a function's parameters, without their annotations: those are resolved later."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise TypeError(f"{handler} must be a function, got {function!r}: {error}") from None
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{handler} cannot be a handler: it yields, where it must return")
    empty = inspect.Parameter.empty
    return inspect.Signature([parameter.replace(annotation=empty) for parameter in found])
