"""Names, queues and options of handlers: what contradicts is refused, by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from batchq import JobHooks, OptionError, QueueManager, RetryPolicy, UnknownHandler
from batchq.stores.memory import MemoryStore

Given: TypeAlias = Any  # as users without a type checker give and get it


@pytest.fixture
def manager() -> QueueManager:
    return QueueManager(MemoryStore())


async def work(number: int) -> int:
    return number


async def send(items: list[int]) -> None: ...


def queues(manager: QueueManager) -> dict[str, list[str]]:
    found = manager._registry.queues.items()
    return {name: [each.name for each in queue.handlers] for name, queue in found}


def plain(manager: QueueManager, name: Given = "work", **options: Given) -> Given:
    return manager.handler(name=name, **options)(work)


def batch(manager: QueueManager, name: Given = "send", **options: Given) -> Given:
    return manager.batch_handler(name=name, **options)(send)


# ---- Names


def test_a_handler_is_named_as_its_function_and_has_a_queue_of_its_own(
    manager: QueueManager,
) -> None:
    handler = manager.handler(work)
    assert (handler.name, handler.queue, handler.names) == ("work", "work", ("work",))
    assert queues(manager) == {"work": ["work"]}


@pytest.mark.parametrize("name", ["a b", "", "ü", "x" * 65, "a/b", "batchq.mine", "a\n", 7])
def test_a_bad_name_is_refused_and_shown(manager: QueueManager, name: Given) -> None:
    for register in (
        lambda: manager.handler(name=name),
        lambda: manager.batch_handler(name=name),
        lambda: manager.handler(aliases=["fine", name]),
        lambda: manager.handler(queue=name),
    ):
        with pytest.raises(OptionError) as caught:
            register()(send)
        assert repr(name) in str(caught.value)
    with pytest.raises(OptionError, match="queue"):
        manager.queue(name)
    assert queues(manager) == {}


def test_the_longest_names_are_good(manager: QueueManager) -> None:
    assert plain(manager, "Az_0.-" + "x" * 58).name.startswith("Az")


def test_what_has_no_name_needs_one(manager: QueueManager) -> None:
    with pytest.raises(OptionError, match="name="):
        manager.handler(functools.partial(work))
    with pytest.raises(OptionError, match="<lambda>"):
        manager.handler(lambda: None)
    assert manager.handler(name="fine")(functools.partial(work)).name == "fine"


def test_two_handlers_of_one_name_are_refused(manager: QueueManager) -> None:
    plain(manager, "one", aliases=["old"])
    for options in ({"name": "one"}, {"name": "old"}, {"name": "two", "aliases": ["one"]}):
        with pytest.raises(OptionError, match=r"named '(one|old)' is registered already"):
            plain(manager, **options)
    assert queues(manager) == {"one": ["one"]}


def test_aliases_are_a_list_and_no_text(manager: QueueManager) -> None:
    with pytest.raises(OptionError, match=r"aliases must be a list of names, got 'old'"):
        plain(manager, aliases="old")


# ---- Queues


def test_plain_handlers_share_a_queue(manager: QueueManager) -> None:
    manager.queue("mail", concurrency=2)
    plain(manager, "a", queue="mail")
    plain(manager, "b", queue="mail")
    plain(manager, "c", queue="undeclared")
    plain(manager, "d", queue="undeclared")
    assert queues(manager) == {"mail": ["a", "b"], "undeclared": ["c", "d"]}
    assert manager._registry.queues["mail"].options.concurrency == 2


@pytest.mark.parametrize("first", [plain, batch])
def test_a_batch_handler_shares_its_queue_with_nobody(
    manager: QueueManager, first: Callable[..., Given]
) -> None:
    first(manager, "first", queue="mail")
    second = plain if first is batch else batch
    for register in (second, batch):
        with pytest.raises(OptionError, match=r"queue 'mail' can't have handler 'second' beside"):
            register(manager, "second", queue="mail")
    assert queues(manager) == {"mail": ["first"]}


def test_a_declared_queue_may_have_one_batch_handler(manager: QueueManager) -> None:
    manager.queue("mail", concurrency=2, lease=9)
    batch(manager, queue="mail", batch_size=7, flush_interval=2)
    options = manager._registry.queues["mail"].options
    found = (options.concurrency, options.lease, options.batch_size, options.flush_interval)
    assert found == (2, 9, 7, 2)


def test_a_queue_of_ones_own_cannot_be_shared_by_others(manager: QueueManager) -> None:
    plain(manager, "mine")
    with pytest.raises(OptionError, match=r"queue 'mine' belongs to handler 'mine' alone"):
        plain(manager, "other", queue="mine")
    manager.queue("shared")
    with pytest.raises(OptionError, match="there is a queue 'shared' already"):
        plain(manager, "shared")


def test_a_queue_is_declared_once_and_first(manager: QueueManager) -> None:
    manager.queue("mail")
    plain(manager, "a", queue="other")
    for name in ("mail", "other"):
        with pytest.raises(OptionError, match=f"queue '{name}' is there already"):
            manager.queue(name)


@pytest.mark.parametrize("option", ["concurrency", "lease", "prefetch"])
def test_what_belongs_to_the_queue_is_said_at_the_queue(manager: QueueManager, option: str) -> None:
    manager.queue("mail")
    with pytest.raises(OptionError, match=rf"whose {option} is said once: manager\.queue\('mail'"):
        plain(manager, queue="mail", **{option: 3})
    assert queues(manager) == {"mail": []}


def test_a_registration_that_fails_leaves_nothing_behind(manager: QueueManager) -> None:
    manager.queue("mail")
    before = manager._registry.queues["mail"].options
    with pytest.raises(OptionError, match="hooks"):
        batch(manager, queue="mail", batch_size=7, hooks="none")
    assert manager._registry.queues["mail"].options == before
    with pytest.raises(OptionError, match="hooks"):
        plain(manager, hooks=[JobHooks(), 7])
    assert queues(manager) == {"mail": []}
    plain(manager, queue="mail")


# ---- Options


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("retry", 3, "retry must be a RetryPolicy, got 3"),
        ("timeout", 0, "timeout must be a number of seconds above 0, or None, got 0"),
        ("timeout", float("nan"), "timeout must be"),
        ("timeout", True, "timeout must be"),
        ("priority", 10, "priority must be a whole number from 0 to 9"),
        ("priority", "top", "priority must be a whole number from 0 to 9, or one of urgent"),
        ("priority", True, "priority must be"),
        ("tier", "disk", "tier must be 'durable' or 'memory', got 'disk'"),
        ("tier", [], "tier must be 'durable' or 'memory'"),
        ("concurrency", 0, "concurrency must be a whole number from 1, got 0"),
        ("concurrency", None, "concurrency must be"),
        ("lease", 0, "lease must be a number of seconds above 0, to 3155760000 (100 years), got 0"),
        ("lease", float("inf"), "lease must be"),
        ("lease", 1e308, "lease must be"),
        ("lease", 10**400, "lease must be"),
        ("timeout", 10**400, "timeout must be"),
        ("prefetch", -1, "prefetch must be a whole number from 0, got -1"),
    ],
)
def test_a_value_out_of_its_range_is_refused(
    manager: QueueManager, option: str, value: object, said: str
) -> None:
    for register in (plain, batch):
        with pytest.raises(OptionError) as caught:
            register(manager, **{option: value})
        assert said in str(caught.value)
    assert queues(manager) == {}


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("batch_size", 0, "batch_size must be a whole number from 1, got 0"),
        ("flush_interval", -1, "flush_interval must be"),
        ("flush_interval", float("nan"), "flush_interval must be"),
        ("flush_interval", "1", "flush_interval must be"),
    ],
)
def test_a_batch_handlers_own_options_are_checked_too(
    manager: QueueManager, option: str, value: object, said: str
) -> None:
    with pytest.raises(OptionError) as caught:
        batch(manager, **{option: value})
    assert said in str(caught.value)
    assert queues(manager) == {}


def test_an_option_there_is_not_is_refused_with_the_nearest(manager: QueueManager) -> None:
    with pytest.raises(TypeError, match=r"no option 'conurrency'; did you mean 'concurrency'\?"):
        plain(manager, conurrency=3)
    with pytest.raises(TypeError, match="no option 'batch_size'"):
        plain(manager, batch_size=3)
    with pytest.raises(TypeError, match="no option 'xyz'; there are: name, aliases"):
        batch(manager, xyz=3)


@pytest.mark.parametrize("option", ["lease", "prefetch"])
def test_the_memory_tier_claims_nothing(manager: QueueManager, option: str) -> None:
    with pytest.raises(OptionError, match=f"nothing is claimed: {option} needs tier='durable'"):
        plain(manager, tier="memory", **{option: 1})
    assert queues(manager) == {}


def test_the_memory_tier_shares_no_queues(manager: QueueManager) -> None:
    with pytest.raises(OptionError, match="'work': the memory tier shares no queues"):
        plain(manager, tier="memory", queue="mail")
    assert queues(manager) == {}


@pytest.mark.parametrize(
    ("option", "value"), [("lease", 0), ("poll_interval", 0), ("grace", -1), ("grace", None)]
)
def test_a_managers_own_options_are_checked(option: str, value: Given) -> None:
    with pytest.raises(OptionError, match=option):
        QueueManager(MemoryStore(), **{option: value})


def test_the_managers_values_hold_where_a_queue_says_nothing() -> None:
    manager = QueueManager(MemoryStore(), lease=7, poll_interval=3)
    plain(manager, "a")
    plain(manager, "b", lease=9)
    found = manager._registry.queues
    assert [found[name].options.lease for name in "ab"] == [7, 9]
    assert [found[name].options.poll_interval for name in "ab"] == [3, 3]


# ---- What cannot be a handler


def test_a_function_that_no_job_could_be_made_for_is_refused(manager: QueueManager) -> None:
    def stars(*args: int) -> None: ...
    def more(**kwargs: int) -> None: ...
    def by_place(a: int, /) -> None: ...
    def two(a: list[int], b: int) -> None: ...
    def none() -> None: ...

    register: Any = manager.handler
    for function in (stars, more, by_place, 7):
        with pytest.raises((TypeError, OptionError)):
            register(function)
    register = manager.batch_handler()
    for other in (stars, more, two, none):
        with pytest.raises(TypeError, match="cannot be a batch handler"):
            register(other)
    assert queues(manager) == {}


# ---- Looking up


def test_an_unknown_name_is_answered_with_those_there_are(manager: QueueManager) -> None:
    with pytest.raises(UnknownHandler, match=r"'x' is registered; there are: none at all"):
        manager.add_job_sync("x", {})
    plain(manager, "b", aliases=["c"], retry=RetryPolicy(1))
    plain(manager, "a")
    with pytest.raises(UnknownHandler, match="'x' is registered; there are: a, b, c"):
        manager.add_job_sync("x", {})


def test_queues_to_work_on_are_checked_before_anything_starts(manager: QueueManager) -> None:
    with pytest.raises(OptionError, match="no handler is registered"):
        manager.working()
    manager.queue("empty")
    plain(manager, "a")
    for queues in (["a", "x"], {"x": 1}, "empty"):
        with pytest.raises(OptionError, match=r"'(x|empty)', which no handler has; there are: a"):
            manager.working(queues)
    with pytest.raises(OptionError, match="nothing to work on: queues names none; there are: a"):
        manager.working([])
    wrong: list[Given] = [0, -1, True, "2"]
    for slots in wrong:
        with pytest.raises(OptionError, match="concurrency"):
            manager.working({"a": slots})
