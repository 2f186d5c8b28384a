"""Payloads: what a signature takes, what it refuses and where, what comes back."""

# ruff: noqa: ANN401  # types are the subject, and are made at run time
from __future__ import annotations

import dataclasses
import sys
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import cache, partial, wraps
from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict
from uuid import UUID

import attrs
import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import example, given

from batchq.core.depth import MAX_DEPTH
from batchq.core.job import Job
from batchq.core.payload import MAX_PAYLOAD, Signature
from batchq.core.result import Result
from batchq.errors import PayloadError


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Letter(msgspec.Struct):
    to: str
    copies: int = 1
    name: str | None = None


class Tagged(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    letters: list[Letter]
    by_number: dict[int, Colour] = {}
    ratio: float | None = None


@dataclasses.dataclass
class Parcel:
    to: str
    weight: Decimal


class Tree(msgspec.Struct):
    branch: Tree | None = None

    def __post_init__(self) -> None:
        repr(0)  # a check of a type's own is a call more


@attrs.define
class Ticket:
    seat: int = attrs.field(validator=attrs.validators.gt(0))


class Options(TypedDict):
    path: str
    width: NotRequired[int]


class Picky(msgspec.Struct):
    """A type with a check of its own that raises what nobody expects."""

    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise KeyError("below zero")


class Unspeakable(msgspec.Struct):
    """A type whose check raises what cannot even be printed."""

    n: int

    def __post_init__(self) -> None:
        raise SilentError


class SilentError(LookupError):
    def __str__(self) -> str:
        raise RuntimeError("not a word")


def handler(item: Any, returns: Any = Any) -> Signature:
    """Make the signature of a batch handler whose items are of a type."""

    def run(items: Any) -> Any: ...

    run.__annotations__ = {"items": list[item], "return": returns}
    return Signature.of_batch(run, handler="run")


def call(function: Callable[..., object]) -> Signature:
    return Signature.of_call(function, handler="run")


def batch(function: Callable[..., object]) -> Signature:
    return Signature.of_batch(function, handler="run")


async def send_welcome(user_id: int, lang: str = "en", *, when: datetime | None = None) -> None: ...


def refusal(signature: Signature, payload: object) -> str:
    with pytest.raises(PayloadError) as caught:
        signature.encode(payload)
    assert str(caught.value).startswith("run cannot take this payload: ")
    return str(caught.value)


# ---- J17: what went in comes out

TEXT = st.text()  # of any characters but halves of surrogate pairs, NUL included
INTS = st.integers(-(10**40), 10**40) | st.integers(-(2**70), 2**70)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | INTS | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
LETTERS = st.builds(Letter, to=TEXT, copies=INTS, name=st.none() | TEXT)
TYPED: dict[Any, st.SearchStrategy[Any]] = {
    Any: PLAIN,
    int: INTS,
    float: FLOATS,
    float | None: st.none() | FLOATS,
    str: TEXT,
    bytes: st.binary(),
    datetime: st.datetimes(timezones=st.sampled_from([UTC])),
    date: st.dates(),
    timedelta: st.timedeltas(timedelta(days=-1_000_000), timedelta(days=1_000_000)),
    UUID: st.uuids(),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    Colour: st.sampled_from(Colour),
    Literal["a", 1]: st.sampled_from(["a", 1]),
    Letter: LETTERS,
    Tagged: st.builds(
        Tagged,
        letters=st.lists(LETTERS, max_size=3),
        by_number=st.dictionaries(INTS, st.sampled_from(Colour), max_size=3),
        ratio=st.none() | FLOATS,
    ),
    Parcel: st.builds(Parcel, to=TEXT, weight=st.decimals(allow_nan=False, allow_infinity=False)),
    Ticket: st.builds(Ticket, seat=st.integers(1, 10**30)),
    Options: st.fixed_dictionaries({"path": TEXT}, optional={"width": INTS}),
    tuple[int, str]: st.tuples(INTS, TEXT),
    frozenset[int]: st.frozensets(INTS),
    list[Parcel] | None: st.none() | st.lists(st.builds(Parcel, TEXT, st.just(Decimal("0.10")))),
    Annotated[int, msgspec.Meta(ge=0)]: st.integers(0, 10**9),
}
SIGNATURES = {type_: handler(type_) for type_ in TYPED}


@given(st.sampled_from(list(TYPED)).flatmap(lambda type_: st.tuples(st.just(type_), TYPED[type_])))
@example((Any, 10**30))
@example((Any, "a\0b"))
@example((Any, {"null": ["null", None, 1.5]}))
@example((Letter, Letter("null", name=None)))
def test_j17_a_payload_comes_back_as_it_was_enqueued(typed: tuple[Any, object]) -> None:
    type_, payload = typed
    signature = SIGNATURES[type_]
    content = signature.encode(payload)
    assert type(content) is bytes
    found = signature.decode(content)
    assert found == payload
    assert type(found) is type(payload)
    assert signature.encode(found) == content or isinstance(payload, frozenset)


@given(user_id=INTS, lang=TEXT, when=st.none() | st.datetimes(timezones=st.just(UTC)))
def test_j17_arguments_come_back_as_they_were_bound(
    user_id: int, lang: str, when: datetime | None
) -> None:
    signature = call(send_welcome)
    bound = signature.bind((user_id, lang), {"when": when})
    assert bound == {"user_id": user_id, "lang": lang, "when": when}
    found = signature.decode(signature.encode(bound))
    assert found == bound


@given(value=PLAIN)
def test_j17_a_value_comes_back_as_it_was_returned(value: object) -> None:
    signature = handler(Any)
    assert signature.decode_value(signature.encode_value(value)) == value


@given(content=st.binary() | st.text().map(str.encode), type_=st.sampled_from(list(TYPED)))
@example(b"", Any)
@example(b"\xff", str)
@example(b'"\\ud800"', str)
@example(b"1e999", float)
@example(b"1" * 5_000, int)
@example(b"NaN", float)
@example(b"[" * 200_000, Any)
@example(b"[" * 200_000 + b"]" * 200_000, Any)
@example(b'{"a":' * 200_000, Any)
def test_bytes_that_are_no_payload_are_refused_and_nothing_else_is_raised(
    content: bytes, type_: Any
) -> None:
    try:
        found = SIGNATURES[type_].decode(content)
    except PayloadError:
        return
    SIGNATURES[type_].encode(found)


# ---- What a plain handler takes


def test_only_the_arguments_of_the_call_are_stored() -> None:
    signature = call(send_welcome)
    assert signature.bind((42,), {}) == {"user_id": 42}
    content = signature.encode(signature.bind((42,), {}))
    assert content == b'{"user_id":42}'
    assert signature.decode(content) == {"user_id": 42}


def test_an_argument_that_is_none_is_stored_and_not_left_out() -> None:
    signature = call(send_welcome)
    content = signature.encode({"user_id": 1, "when": None})
    assert signature.decode(content) == {"user_id": 1, "when": None}


def test_arguments_given_by_place_and_by_name_are_the_same_payload() -> None:
    signature = call(send_welcome)
    assert signature.bind((42, "pt"), {}) == signature.bind((), {"lang": "pt", "user_id": 42})


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [
        ((), {}, "'user_id'"),
        ((1,), {"langs": "pt"}, "'langs'"),
        ((1,), {"user_id": 1}, "'user_id'"),
        ((1, "pt", None), {}, "too many positional arguments"),
    ],
)
def test_a_call_that_the_function_does_not_take_is_refused_by_name(
    args: tuple[Any, ...], kwargs: dict[str, Any], named: str
) -> None:
    with pytest.raises(PayloadError, match=rf"^run cannot be called so: .*{named}.*\(user_id, l"):
        call(send_welcome).bind(args, kwargs)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"user_id": "5"}, "Expected `int`, got `str` - at `$.user_id`"),
        ({"user_id": True}, "Expected `int`, got `bool` - at `$.user_id`"),
        ({"user_id": 5, "lang": None}, "Expected `str`, got `null` - at `$.lang`"),
        ({"user_id": 5, "langs": "pt"}, "Object contains unknown field `langs`"),
        ({"lang": "pt"}, "Object missing required field `user_id`"),
        ({"user_id": 5, "when": "soon"}, "Invalid RFC3339 encoded datetime - at `$.when`"),
        ([5], "Expected `object`, got `array`"),
        (None, "Expected `object`, got `null`"),
    ],
)
def test_a_payload_by_name_is_checked_like_a_call(payload: object, said: str) -> None:
    assert refusal(call(send_welcome), payload).endswith(said)


def test_an_argument_that_newer_code_stored_is_not_lost_silently() -> None:
    with pytest.raises(PayloadError, match="unknown field `tone`"):
        call(send_welcome).decode(b'{"user_id":42,"tone":"kind"}')


def test_a_parameter_without_annotation_takes_anything() -> None:
    def run(a, b=None): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202

    signature = call(run)
    payload = {"a": {"x": [1, "2", None]}, "b": 1.5}
    assert signature.decode(signature.encode(payload)) == payload


def test_parameters_may_have_any_name() -> None:
    def run(self: int, __x: int, naïve: int, __init__: int, a0: int, cls: int = 0) -> None: ...  # noqa: PLC2401

    signature = call(run)
    payload = {"self": 1, "__x": 2, "naïve": 3, "__init__": 4, "a0": 5}
    found = signature.decode(signature.encode(payload))
    assert found == payload
    assert refusal(signature, payload | {"naïve": "3"}).endswith("at `$.naïve`")


def test_a_function_without_parameters_takes_an_empty_object() -> None:
    def run() -> None: ...

    signature = call(run)
    assert signature.encode(signature.bind((), {})) == b"{}"
    assert signature.decode(b"{}") == {}
    refusal(signature, {"a": 1})


def stars(first: int, *rest: int) -> None: ...
def double_stars(first: int, **rest: int) -> None: ...
def by_place(first: int, /, second: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "named"),
    [(stars, r"\*rest"), (double_stars, r"\*\*rest"), (by_place, "first")],
)
def test_what_has_no_name_in_a_stored_job_is_refused_at_registration(
    function: Callable[..., object], named: str
) -> None:
    with pytest.raises(TypeError, match=f"^run cannot be a handler: its parameter {named}"):
        call(function)


@pytest.mark.parametrize("make", [call, batch])
def test_what_is_no_function_is_refused_at_registration(
    make: Callable[[Any], Signature],
) -> None:
    with pytest.raises(TypeError, match=r"^run must be a function, got 5"):
        make(5)


def a_generator(item: int) -> Iterator[int]:
    yield item


async def an_async_generator(item: int) -> AsyncIterator[int]:  # noqa: ASYNC900 - refused
    yield item


@pytest.mark.parametrize("function", [a_generator, an_async_generator])
@pytest.mark.parametrize("make", [call, batch])
def test_what_yields_is_refused_at_registration(
    make: Callable[[Any], Signature], function: Callable[..., object]
) -> None:
    with pytest.raises(TypeError, match=r"^run cannot be a handler: it yields"):
        make(function)


# ---- What a batch handler takes


def letters(items: list[Letter]) -> None: ...
def letters_seen(items: Sequence[Letter]) -> None: ...
def letters_once(items: Iterable[Letter]) -> None: ...
def letters_by_place(items: list[Letter], /) -> None: ...
def letter_jobs(jobs: list[Job[Letter]]) -> None: ...
def letter_jobs_seen(jobs: Sequence[Job[Letter]]) -> None: ...
def jobs_or_letters(jobs: Sequence[Job[Letter]] | Sequence[Letter]) -> None: ...
def mixed(jobs: list[Job[Letter] | Letter]) -> None: ...
def with_transport(items: list[Letter], transport: object, *, tries: int = 3) -> None: ...


class Sender:
    async def many(self, items: list[Letter]) -> None: ...

    def one(self, to: str, copies: int = 1) -> None: ...

    def __call__(self, jobs: list[Job[Letter]]) -> None: ...


def measured(function: Callable[..., object]) -> Callable[..., object]:
    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> object:
        return function(*args, **kwargs)

    return run


@pytest.mark.parametrize(
    ("function", "wants_jobs"),
    [
        (letters, False),
        (letters_seen, False),
        (letters_once, False),
        (letters_by_place, False),
        (letter_jobs, True),
        (letter_jobs_seen, True),
        (jobs_or_letters, True),
        (mixed, True),
        (partial(with_transport, transport=None), False),
        (Sender().many, False),
        (Sender(), True),
        (measured(letter_jobs), True),
        (partial(measured(with_transport), transport=None), False),
        (cache(letter_jobs), True),
        (partial(cache(with_transport), transport=None), False),
    ],
)
def test_a_batch_handler_takes_one_item_of_its_list(
    function: Callable[..., object], *, wants_jobs: bool
) -> None:
    signature = batch(function)
    assert signature.wants_jobs is wants_jobs
    content = signature.encode(Letter("ana", 2))
    assert signature.decode(content) == Letter("ana", 2)
    assert refusal(signature, {"to": 5}).endswith("Expected `str`, got `int` - at `$.to`")


def bare(items) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001
def bare_list(items: list) -> None: ...  # type: ignore[type-arg]
def bare_sequence(items: Sequence) -> None: ...  # type: ignore[type-arg]
def bare_jobs(items: list[Job]) -> None: ...  # type: ignore[type-arg]


@pytest.mark.parametrize("function", [bare, bare_list, bare_sequence, bare_jobs])
def test_items_without_annotation_are_anything(function: Callable[..., object]) -> None:
    signature = batch(function)
    assert signature.decode(signature.encode([1, {"a": None}])) == [1, {"a": None}]
    assert signature.wants_jobs is (function is bare_jobs)


def test_a_plain_handler_wants_no_jobs() -> None:
    assert not call(send_welcome).wants_jobs


def at_least_one(copies: Annotated[int, msgspec.Meta(ge=1)]) -> None: ...


def test_a_constraint_in_an_annotation_is_checked() -> None:
    assert refusal(call(at_least_one), {"copies": 0}).endswith("`int` >= 1 - at `$.copies`")


def test_methods_partials_and_wrappers_are_plain_handlers_too() -> None:
    assert call(Sender().one).bind(("ana",), {}) == {"to": "ana"}
    assert refusal(call(Sender().one), {"to": 5}).endswith("`$.to`")
    filled = call(partial(send_welcome, 42, lang="pt"))
    assert filled.encode(filled.bind((), {})) == b"{}"
    assert refusal(filled, {"lang": 5}).endswith("`$.lang`")
    assert refusal(call(measured(send_welcome)), {"user_id": "5"}).endswith("`$.user_id`")


def nothing() -> None: ...
def two(items: list[Letter], more: int) -> None: ...
def only_named(*, items: list[Letter]) -> None: ...
def items_as_stars(*items: Letter) -> None: ...


@pytest.mark.parametrize("function", [nothing, two, only_named, items_as_stars])
def test_a_batch_handler_takes_exactly_one_argument(function: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match=r"^run cannot be a batch handler: .*exactly one argument"):
        batch(function)


def one_letter(items: Letter) -> None: ...
def a_tuple(items: tuple[Letter, ...]) -> None: ...
def a_set(items: set[str]) -> None: ...


@pytest.mark.parametrize("function", [one_letter, a_tuple, a_set])
def test_a_batch_handler_is_annotated_with_a_list(function: Callable[..., object]) -> None:
    signature = batch(function)
    with pytest.raises(TypeError, match=r"^run takes a list of items: annotate 'items' as list"):
        signature.resolve()


# ---- Annotations


def early(items: list[Later]) -> None: ...
def early_call(one: Later, two: list[Later]) -> None: ...


def test_annotations_may_name_what_is_defined_later() -> None:
    assert batch(early).decode(b'{"n":1}') == Later(1)
    found = call(early_call).decode(b'{"one":{"n":1},"two":[{"n":2}]}')
    assert found == {"one": Later(1), "two": [Later(2)]}


class Later(msgspec.Struct):
    n: int


class Dangling(msgspec.Struct):
    n: Missing  # type: ignore[name-defined]  # noqa: F821


def undefined(items: list[Missing]) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def undefined_call(one: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def undefined_inside(items: list[Dangling]) -> None: ...


@pytest.mark.parametrize(
    "signature", [batch(undefined), call(undefined_call), batch(undefined_inside)]
)
def test_a_name_that_is_not_defined_is_an_error_at_first_use_that_names_it(
    signature: Signature,
) -> None:
    uses: list[Callable[[], object]] = [
        signature.resolve,
        partial(signature.encode, {}),
        partial(signature.decode, b"{}"),
    ]
    for use in uses:
        with pytest.raises(TypeError, match=r"^run is annotated with 'Missing', which is not def"):
            use()


def nonsense(one: sys.nothing) -> None: ...  # type: ignore[name-defined]


NOTHING: Final[tuple[Any, ...]] = ()


def raising(one: NOTHING[0]) -> NOTHING[0]: ...  # type: ignore[valid-type]


def two_dicts(one: Letter | dict[str, int]) -> None: ...


def test_an_annotation_that_is_no_type_of_json_is_an_error_that_says_so() -> None:
    with pytest.raises(TypeError, match=r"^run has annotations that mean nothing: .*'nothing'"):
        call(nonsense).resolve()
    with pytest.raises(TypeError, match=r"^run has annotations that mean nothing: IndexError: "):
        call(raising).resolve()
    assert call(raising).decode_value(b"7") == 7
    with pytest.raises(TypeError, match=r"^run takes what is no type of JSON: Type unions may not"):
        call(two_dicts).resolve()


def test_a_good_signature_resolves() -> None:
    call(send_welcome).resolve()
    batch(letter_jobs).resolve()


# ---- What JSON cannot carry


def nested(depth: int) -> object:
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


def nested_tree(depth: int) -> Tree:
    value = Tree()
    for _ in range(depth - 1):
        value = Tree(value)
    return value


def endless() -> object:
    value: list[object] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (float("nan"), "no NaN and no infinity - at `$`"),
        ({"a": [1.5, None, float("inf")]}, "no NaN and no infinity - at `$.a[2]`"),
        ((1, {"b": -float("inf")}), "no NaN and no infinity - at `$[1].b`"),
        (Letter("a", name=float("nan")), "at `$.name`"),  # type: ignore[arg-type]
        ("\ud800", "surrogates not allowed"),
        ({"\udfff": 1}, "surrogates not allowed"),
        (nested(100_000), "recursion"),
        (endless(), "recursion"),
        (10**5_000, "4300 digits"),
        (object(), "Encoding objects of type object is unsupported"),
        ({(1, 2): 3}, "Only dicts with str-like or number-like keys are supported"),
        (msgspec.Raw(b"[1,"), "truncated"),
    ],
    ids=range(12),  # a payload's own text may be as hostile as the payload
)
def test_what_json_cannot_carry_is_refused(payload: object, said: str) -> None:
    assert said in refusal(handler(Any), payload)


@pytest.mark.parametrize(
    "payload", [float("nan"), "\ud800", nested(100_000), object()], ids=range(4)
)
def test_a_value_that_json_cannot_carry_is_refused(payload: object) -> None:
    with pytest.raises(PayloadError, match=r"^run returned what cannot be kept: "):
        handler(Any).encode_value(payload)


def test_a_payload_of_one_mebibyte_is_taken_and_one_byte_more_is_not() -> None:
    signature = handler(str)
    text = "x" * (MAX_PAYLOAD - 2)  # two for the quotes
    assert len(signature.encode(text)) == MAX_PAYLOAD == 2**20
    assert signature.decode(signature.encode(text)) == text
    assert "1048577 bytes of JSON; at most 1048576 are stored" in refusal(signature, text + "x")
    assert signature.encode_value(text) is not None
    with pytest.raises(PayloadError, match="1048577 bytes of JSON"):
        signature.encode_value(text + "x")


def test_a_payload_of_the_most_levels_is_taken_and_one_level_more_is_not() -> None:
    signature = handler(Any)
    deepest = signature.encode(nested(MAX_DEPTH - 1))
    assert signature.decode(deepest) == nested(MAX_DEPTH - 1)
    said = "it is nested 501 deep; at most 500 levels are stored"
    assert said in refusal(signature, nested(MAX_DEPTH))
    assert said in refusal(signature, {"of": {"kinds": nested(MAX_DEPTH - 2)}})
    assert said in refusal(signature, nested_tree(MAX_DEPTH + 1))
    assert signature.encode_value(nested(MAX_DEPTH - 1)) == deepest
    with pytest.raises(PayloadError, match=f"^run returned what cannot be kept: {said}"):
        signature.encode_value(nested(MAX_DEPTH))


def test_a_plain_handlers_arguments_are_one_level() -> None:
    def run(item: Any) -> None: ...

    signature = Signature.of_call(run, handler="run")
    signature.encode({"item": nested(MAX_DEPTH - 2)})
    assert "nested 501 deep" in refusal(signature, {"item": nested(MAX_DEPTH - 1)})


def test_many_brackets_that_are_not_within_each_other_are_not_deep() -> None:
    payloads: list[object] = [
        [[]] * (2 * MAX_DEPTH),
        "[" * (2 * MAX_DEPTH),
        ["[{\\", '"[' * MAX_DEPTH, '\\"[[', "\\" * MAX_DEPTH, {"[[\\": "{" * MAX_DEPTH}],
    ]
    for payload in payloads:
        handler(Any).encode(payload)


def test_what_was_taken_deep_in_a_call_stack_or_not_is_read_deep_in_one() -> None:
    """Of Python's 1,000 calls the limit leaves enough to whoever calls."""

    def calls_below(calls: int) -> object:
        if calls:
            return calls_below(calls - 1)
        return signature.decode(signature.encode(nested_tree(MAX_DEPTH)))

    signature = handler(Tree)
    assert calls_below(0) == calls_below(300)


def test_what_the_stack_has_no_room_for_is_refused_and_not_stored_unread() -> None:
    def calls_below(calls: int) -> str:
        return calls_below(calls - 1) if calls else refusal(handler(Any), nested(MAX_DEPTH - 1))

    assert "deeper than Python can go from here" in calls_below(700)


def test_size_is_counted_in_bytes_and_not_in_characters() -> None:
    assert "bytes of JSON" in refusal(handler(str), "é" * (MAX_PAYLOAD // 2))


def test_a_check_of_the_users_own_type_refuses_whatever_it_raises() -> None:
    assert refusal(handler(Picky), {"n": -1}).endswith("below zero'")
    assert refusal(handler(Ticket), {"seat": 0}).endswith("'seat' must be > 0: 0")
    with pytest.raises(PayloadError, match=r"^run cannot take this payload: ") as caught:
        handler(Unspeakable).decode(b'{"n":1}')
    assert type(caught.value.__cause__) is SilentError


# ---- Values


def test_no_value_stays_none() -> None:
    signature = handler(Any, list[Result[int]])
    assert signature.encode_value(None) is None
    assert signature.decode_value(None) is None


async def coroutine() -> Letter: ...  # type: ignore[empty-body]
def returns_any() -> Any: ...
def unannotated(): ...  # type: ignore[no-untyped-def]  # noqa: ANN201
def missing() -> Missing: ...  # type: ignore[name-defined]  # noqa: F821
def impossible() -> Letter | dict[str, int]: ...  # type: ignore[empty-body]
def awaitable() -> Awaitable[Letter]: ...  # type: ignore[empty-body]
def result() -> Result[Letter]: ...  # type: ignore[empty-body]
def some_result() -> Result[Letter] | None: ...
def bare_result() -> Result: ...  # type: ignore[type-arg, empty-body]
def a_list() -> list[Letter]: ...  # type: ignore[empty-body]


LETTER = b'{"to":"ana"}'
AS_JSON = {"to": "ana"}


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (coroutine, Letter("ana")),
        (awaitable, Letter("ana")),
        (result, Letter("ana")),
        (some_result, Letter("ana")),
        (returns_any, AS_JSON),
        (unannotated, AS_JSON),
        (missing, AS_JSON),
        (impossible, AS_JSON),
        (bare_result, AS_JSON),
    ],
)
def test_a_plain_handlers_value_is_what_its_annotation_says(
    function: Callable[..., object], value: object
) -> None:
    assert call(function).decode_value(LETTER) == value


def test_a_plain_handlers_list_is_one_value() -> None:
    assert call(a_list).decode_value(b'[{"to":"ana"}]') == [Letter("ana")]


@pytest.mark.parametrize(
    "returns",
    [
        list[Result[Letter]],
        list[Result[Letter]] | None,
        Sequence[Result[Letter] | None],
        list[Result[Letter] | ValueError],
        list[Letter],
        tuple[Result[Letter], ...],
        dict[int, Result[Letter]],
        Mapping[int, Letter],
        Awaitable[list[Result[Letter]]],
    ],
)
def test_a_batch_handlers_value_is_one_of_its_list(returns: object) -> None:
    assert handler(Any, returns).decode_value(LETTER) == Letter("ana")


@pytest.mark.parametrize("returns", [Any, None, list, list[Result[Any]], object, int])
def test_a_batch_handlers_value_without_a_type_is_plain_json(returns: object) -> None:
    assert handler(Any, returns).decode_value(LETTER) == AS_JSON


def test_a_value_that_is_not_what_the_annotation_says_is_refused_with_its_place() -> None:
    with pytest.raises(PayloadError, match=r"^run gave a value .*Expected `str`.* at `\$.to`"):
        handler(Any, list[Letter]).decode_value(b'{"to":5}')


def test_an_annotation_of_the_value_that_cannot_be_resolved_leaves_payloads_alone() -> None:
    assert call(missing).encode({}) == b"{}"
