"""Collect many small things into batches, and hand each batch to one function.

In memory for speed, or on disk so that nothing is lost; the engine is the same.

`import batchq` imports none of it: a name is looked up in its module when it is first
asked for, so that `batchq --help` answers without trio. A name stands three times in
this file (for checkers, for readers, for the lookup); a test keeps them equal.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from batchq.call_context import CancelReason, Context, context
    from batchq.core.adaptive import AdaptiveBatchSize, AdaptiveConcurrency
    from batchq.core.backoff import Backoff
    from batchq.core.batch import Batch, Trigger
    from batchq.core.entry import EntryStatus
    from batchq.core.job import Job, Receipt
    from batchq.core.lifecycle import JobState
    from batchq.core.limits import SlidingWindow, TokenBucket
    from batchq.core.option_groups import DropPolicy
    from batchq.core.record import (
        JobFilter,
        JobRecord,
        Ordered,
        Outcome,
        StoreStats,
        Tally,
        WorkerRecord,
    )
    from batchq.core.result import Result
    from batchq.core.retention import Retention
    from batchq.core.retry import RetryPolicy
    from batchq.core.statistics import DrainReport, QueueStats
    from batchq.errors import (
        BatchqError,
        BatchTimeout,
        ContractError,
        DrainTimeout,
        Dropped,
        DuplicateKey,
        EntryCancelled,
        Expired,
        HookError,
        ItemError,
        ItemTooLarge,
        JobError,
        JobFailed,
        JobStopped,
        LeaseLost,
        LifecycleError,
        MissingExtra,
        NotAStore,
        OptionError,
        PayloadError,
        PersistenceError,
        ProcessorError,
        QueueClosed,
        QueueError,
        QueueFull,
        QueuePaused,
        StorageInUse,
        StoreBroken,
        StoreBusy,
        StoreError,
        StoreFull,
        StoreTooNew,
        StoreUnavailable,
        StrategyError,
        Throttled,
        UnknownHandler,
        UnknownJob,
        Unsupported,
    )
    from batchq.handle import Entry, Handle
    from batchq.handler import BatchHandler, Handler
    from batchq.hooks import Hooks, JobHooks
    from batchq.job_handle import JobHandle
    from batchq.manager import QueueManager
    from batchq.persistence.file import FileStorage
    from batchq.persistence.settings import Persistence
    from batchq.persistence.sqlite import SqliteStorage
    from batchq.portal import Portal
    from batchq.queue import BatchedQueue
    from batchq.shortcuts import batch_queue, in_memory_queue, rate_limited_queue
    from batchq.stores.url import open_store

__version__ = "0.1.0"

__all__ = [
    "AdaptiveBatchSize",
    "AdaptiveConcurrency",
    "Backoff",
    "Batch",
    "BatchHandler",
    "BatchTimeout",
    "BatchedQueue",
    "BatchqError",
    "CancelReason",
    "Context",
    "ContractError",
    "DrainReport",
    "DrainTimeout",
    "DropPolicy",
    "Dropped",
    "DuplicateKey",
    "Entry",
    "EntryCancelled",
    "EntryStatus",
    "Expired",
    "FileStorage",
    "Handle",
    "Handler",
    "HookError",
    "Hooks",
    "ItemError",
    "ItemTooLarge",
    "Job",
    "JobError",
    "JobFailed",
    "JobFilter",
    "JobHandle",
    "JobHooks",
    "JobRecord",
    "JobState",
    "JobStopped",
    "LeaseLost",
    "LifecycleError",
    "MissingExtra",
    "NotAStore",
    "OptionError",
    "Ordered",
    "Outcome",
    "PayloadError",
    "Persistence",
    "PersistenceError",
    "Portal",
    "ProcessorError",
    "QueueClosed",
    "QueueError",
    "QueueFull",
    "QueueManager",
    "QueuePaused",
    "QueueStats",
    "Receipt",
    "Result",
    "Retention",
    "RetryPolicy",
    "SlidingWindow",
    "SqliteStorage",
    "StorageInUse",
    "StoreBroken",
    "StoreBusy",
    "StoreError",
    "StoreFull",
    "StoreStats",
    "StoreTooNew",
    "StoreUnavailable",
    "StrategyError",
    "Tally",
    "Throttled",
    "TokenBucket",
    "Trigger",
    "UnknownHandler",
    "UnknownJob",
    "Unsupported",
    "WorkerRecord",
    "batch_queue",
    "context",
    "in_memory_queue",
    "open_store",
    "rate_limited_queue",
]

_HOMES: Final = MappingProxyType(
    {
        "batchq.call_context": ("CancelReason", "Context", "context"),
        "batchq.core.adaptive": ("AdaptiveBatchSize", "AdaptiveConcurrency"),
        "batchq.core.backoff": ("Backoff",),
        "batchq.core.batch": ("Batch", "Trigger"),
        "batchq.core.entry": ("EntryStatus",),
        "batchq.core.job": ("Job", "Receipt"),
        "batchq.core.lifecycle": ("JobState",),
        "batchq.core.limits": ("SlidingWindow", "TokenBucket"),
        "batchq.core.option_groups": ("DropPolicy",),
        "batchq.core.record": (
            "JobFilter",
            "JobRecord",
            "Ordered",
            "Outcome",
            "StoreStats",
            "Tally",
            "WorkerRecord",
        ),
        "batchq.core.result": ("Result",),
        "batchq.core.retention": ("Retention",),
        "batchq.core.retry": ("RetryPolicy",),
        "batchq.core.statistics": ("DrainReport", "QueueStats"),
        "batchq.handle": ("Entry", "Handle"),
        "batchq.handler": ("BatchHandler", "Handler"),
        "batchq.hooks": ("Hooks", "JobHooks"),
        "batchq.job_handle": ("JobHandle",),
        "batchq.manager": ("QueueManager",),
        "batchq.persistence.file": ("FileStorage",),
        "batchq.persistence.settings": ("Persistence",),
        "batchq.persistence.sqlite": ("SqliteStorage",),
        "batchq.portal": ("Portal",),
        "batchq.queue": ("BatchedQueue",),
        "batchq.shortcuts": ("batch_queue", "in_memory_queue", "rate_limited_queue"),
        "batchq.stores.url": ("open_store",),
    }
)
# Whatever stands in no other module is an error.
_MODULE_OF: Final = dict.fromkeys(__all__, "batchq.errors") | {
    name: module for module, names in _HOMES.items() for name in names
}


def __getattr__(name: str) -> object:
    try:
        module = _MODULE_OF[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(import_module(module), name)
    globals()[name] = value  # the next lookup is a plain one
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
