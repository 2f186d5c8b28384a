"""Options: checked once, at construction; each message names option, bound and value."""

from __future__ import annotations

import math
import random
from typing import Any

import attrs
import pytest

from batchq import BatchedQueue, Hooks, Persistence, RetryPolicy
from batchq.core.batch import Batch
from batchq.core.option_groups import (
    BatchOptions,
    DropPolicy,
    FailureOptions,
    OrderOptions,
    PaceOptions,
    RoomOptions,
    TimeOptions,
)
from batchq.core.options import Options, read_settings
from batchq.errors import OptionError

NAN = float("nan")
WHOLE_FROM_1 = "must be a whole number from 1"
SECONDS = "must be a number of seconds from 0"
BAD: list[tuple[str, object, str]] = [
    *(("batch_size", bad, WHOLE_FROM_1) for bad in (0, -1, 1.0, True, "5", None, NAN)),
    *(("priority_levels", bad, f"{WHOLE_FROM_1} to 1000") for bad in (0, True, 2.5, 1001, 10**30)),
    *(("concurrency", bad, WHOLE_FROM_1) for bad in (0, False, math.inf)),
    *(("max_queue_size", bad, f"{WHOLE_FROM_1}, or None") for bad in (0, True, math.inf, "x")),
    *(
        ("default_priority", bad, "must be a whole number from 0, or None")
        for bad in (-1, True, 0.0)
    ),
    *(("flush_interval", bad, SECONDS) for bad in (-1, NAN, True, "1")),
    *(("throttle", bad, SECONDS) for bad in (-0.5, NAN, None, True)),
    *(("throttle", bad, f"{SECONDS} to 3155760000 (100 years)") for bad in (math.inf, 3.2e9)),
    *(("persistence", bad, "must be a Persistence or None") for bad in (Persistence, "dir", True)),
    *(("shutdown_timeout", bad, f"{SECONDS}, or None") for bad in (-1, NAN, True)),
    *(
        ("processor_timeout", bad, "must be a number of seconds above 0, or None")
        for bad in (0, -1, NAN, True)
    ),
    *(("cancel_abandoned", bad, "must be True or False") for bad in (1, None, "no")),
    *(
        ("drop_policy", bad, "must be one of block, reject-new, drop-oldest, drop-newest,")
        for bad in ("drop", None, 1)
    ),
    *(("retry", bad, "must be a RetryPolicy or None") for bad in (3, True, "3")),
    *(("name", bad, "must be a text that is not empty") for bad in ("", None, 5)),
    *(("rng", bad, "must be a random.Random or None") for bad in (random, 5)),
]


@pytest.mark.parametrize(("name", "value", "bound"), BAD)
def test_a_bad_value_is_refused_by_name_bound_and_value(
    name: str, value: object, bound: str
) -> None:
    with pytest.raises(OptionError) as caught:
        read_settings({name: value})
    message = str(caught.value)
    assert message.startswith(f"{name} {bound}")
    assert message.endswith(f"got {value!r}")
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"max_queue_size": 99},
            "max_queue_size (99) must hold one full batch (batch_size=100)",
        ),
        (
            {"default_priority": 3, "priority_levels": 3},
            "default_priority (3) must be below priority_levels (3)",
        ),
    ],
)
def test_two_options_at_odds_are_refused_with_both_values(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(OptionError) as caught:
        read_settings(options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("batchsize", "did you mean 'batch_size'?"),
        ("flush_intervall", "did you mean 'flush_interval'?"),
        ("xyz", "there are: name, batch_size,"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest_one(name: str, hint: str) -> None:
    options: Any = {name: 1}
    with pytest.raises(TypeError) as caught:
        BatchedQueue(nothing, **options)
    assert f"no option {name!r}; {hint}" in str(caught.value)


def test_none_is_no_limit_and_the_ends_of_the_ranges_are_legal() -> None:
    settings = read_settings(
        {
            "batch_size": 1,
            "flush_interval": None,
            "max_queue_size": None,
            "throttle": 0,
            "processor_timeout": None,
            "shutdown_timeout": None,
            "default_priority": None,
            "retry": None,
            "rng": random.Random(1),
            "hooks": object(),  # of the floor above
        }
    )
    assert settings.batch.flush_interval == math.inf
    assert settings.room.max_queue_size is None


@pytest.mark.parametrize(("levels", "level"), [(1, 0), (2, 1), (3, 1), (5, 2)])
def test_an_item_without_a_priority_is_in_the_middle(levels: int, level: int) -> None:
    assert OrderOptions(priority_levels=levels).level == level
    assert OrderOptions(priority_levels=levels, default_priority=0).level == 0


@pytest.mark.parametrize("policy", DropPolicy)
def test_a_drop_policy_is_written_with_hyphens_or_underscores(policy: DropPolicy) -> None:
    for written in (policy, policy.value, policy.value.replace("-", "_")):
        assert RoomOptions(drop_policy=written).drop_policy is policy


def test_the_keys_of_the_constructor_are_the_fields_of_the_classes() -> None:
    kinds = (BatchOptions, OrderOptions, PaceOptions, RoomOptions, FailureOptions, TimeOptions)
    fields = {field.name for kind in kinds for field in attrs.fields(kind)}
    assert set(Options.__annotations__) == fields | {"name", "hooks", "persistence", "rng"}


async def nothing(_: Batch[Any]) -> None:
    """Succeed."""


@pytest.mark.parametrize("bad", [3, Hooks, [Hooks(), 3], "on_error"])
def test_hooks_that_are_none_are_refused(bad: Any) -> None:  # noqa: ANN401 - of any type
    with pytest.raises(OptionError, match=r"hooks must be Hooks or a list of Hooks, got "):
        BatchedQueue(nothing, hooks=bad)


def test_an_argument_wins_over_the_attribute_of_a_subclass() -> None:
    class Mail(BatchedQueue[Any, Any]):
        name = "mail"
        batch_size = 7
        retry = RetryPolicy(2)

        async def process_batch(self, batch: Batch[Any]) -> None:
            """Succeed."""

    assert Mail()._batcher.waiting.batch_size == 7
    assert Mail(batch_size=8)._batcher.waiting.batch_size == 8
    assert (Mail().name, Mail(name="post").name) == ("mail", "post")


def plain(_: Batch[Any]) -> None:
    """What a processor must not be."""


class Processing(BatchedQueue[Any, Any]):
    async def process_batch(self, batch: Batch[Any]) -> None:
        """Succeed."""


class Empty:
    """A processor that counts as false, and is one."""

    def __len__(self) -> int:
        return 0

    async def __call__(self, batch: Batch[Any]) -> None:
        """Succeed."""


def test_there_is_one_processor_and_it_is_async() -> None:
    with pytest.raises(TypeError, match="found neither"):
        BatchedQueue()
    with pytest.raises(TypeError, match="found both"):
        Processing(nothing)
    with pytest.raises(TypeError, match=r"must be an async function, got .*plain"):
        BatchedQueue(plain)  # type: ignore[arg-type]
    BatchedQueue(Empty())
    Processing()
