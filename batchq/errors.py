"""Every error of batchq, as one tree.

    BatchqError
      OptionError (ValueError)           a setting out of range or at odds with another
      MissingExtra (ImportError)         an optional dependency is not installed
      QueueError                         what a caller of a queue meets
        QueueFull                        no room, and nobody would wait
        QueueClosed, QueuePaused         after close or drain; after pause(accept=False)
        ItemTooLarge                     heavier than any batch, queue or limit could carry
        DuplicateKey                     an item of that key waits; coalesce_policy="reject"
        DrainTimeout (TimeoutError)      entries were left when the time was up
      ItemError                          an item's failure that was no exception
        Dropped, EntryCancelled          it left the queue without a call
        Expired (TimeoutError)           its time was up: queue_timeout, delivery_timeout
      ProcessorError                     what went wrong in a call
        BatchTimeout (TimeoutError)      the call took longer than processor_timeout
        ContractError                    the call did not answer once per item
        Throttled                        raised *by* processors: call again later
      StrategyError                      a batching strategy misbehaved; the default rule serves
      HookError                          a hook raised; nothing else changed
      PersistenceError                   a snapshot was not written, or not read whole
      StorageInUse                       another live queue owns the storage_key
      JobError
        PayloadError (ValueError)        does not encode, decode or fit its type
        LeaseLost                        the receipt is stale; nothing was changed
        JobFailed                        what job.result() raises
        UnknownHandler, UnknownJob (LookupError)
        LifecycleError                   a move that the life of a job does not have
      StoreError                         from the driver's error, kept as __cause__
        NotAStore                        not a database, or not our tables; file untouched
        StoreBusy                        gave up waiting for the lock; nothing was done
        StoreFull                        disk or memory; recovers without restart
        StoreUnavailable                 outcome = "not sent" | "unknown": behind a network
        StoreBroken                      stop using it
        StoreTooNew                      its schema is newer than this code; file untouched
        Unsupported                      this store can't do that

    JobStopped (BaseException)           no error: raised by context().check(), to be let pass

A message says what was asked, what was found and what would be legal. A second base from
the standard library stands only where callers catch that one already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = [
    "BatchTimeout",
    "BatchqError",
    "ContractError",
    "DrainTimeout",
    "Dropped",
    "DuplicateKey",
    "EntryCancelled",
    "Expired",
    "HookError",
    "ItemError",
    "ItemTooLarge",
    "JobError",
    "JobFailed",
    "JobStopped",
    "LeaseLost",
    "LifecycleError",
    "MissingExtra",
    "NotAStore",
    "OptionError",
    "PayloadError",
    "PersistenceError",
    "ProcessorError",
    "QueueClosed",
    "QueueError",
    "QueueFull",
    "QueuePaused",
    "StorageInUse",
    "StoreBroken",
    "StoreBusy",
    "StoreError",
    "StoreFull",
    "StoreTooNew",
    "StoreUnavailable",
    "StrategyError",
    "Throttled",
    "UnknownHandler",
    "UnknownJob",
    "Unsupported",
]

_LONGEST_WAIT: Final = 3_155_760_000  # as batchq.core.numbers has it [s]


class BatchqError(Exception):
    """The root: catch this to catch anything that batchq raises.

    Attributes:
        stored: where `enqueue_many` of a handler stopped half-way: the handles of the jobs
            that were stored before, in order; where `store_many` did, their number.
    """

    stored: object = ()


class OptionError(BatchqError, ValueError):
    """A setting is out of its range, or at odds with another one.

    The message names the option, what is allowed and the value found.
    """


class MissingExtra(BatchqError, ImportError):
    """A feature needs a package that is not installed; the message says what to type.

    Attributes:
        feature: what was asked for.
        package: the package that is missing.
        extra: the extra of batchq that brings it.
    """

    def __init__(self, feature: str, package: str, extra: str) -> None:
        self.feature = feature
        self.package = package
        self.extra = extra
        super().__init__(f"{feature} needs {package}: pip install '.[{extra}]'")


class QueueError(BatchqError):
    """What a caller of a queue meets.

    Attributes:
        entries: where `enqueue_many` stopped half-way: the entries of the items that were
            admitted before, in order; they run on.
    """

    entries: Sequence[object] = ()


class QueueFull(QueueError):
    """The queue has no room, and this call would not wait for any.

    Attributes:
        size: what waits [items].
        limit: `max_queue_size` [items].
    """

    def __init__(self, message: str, *, size: int, limit: int) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit


class QueueClosed(QueueError):
    """The queue accepts no more; also the error of entries left without a verdict."""


class QueuePaused(QueueError):
    """The queue was paused with `accept=False`; `resume()` opens it again."""


class ItemTooLarge(QueueError):
    """The item weighs more than any batch, the queue or a limit could ever carry.

    Attributes:
        weight: what it weighs.
        limit: what is allowed.
    """

    def __init__(self, message: str, *, weight: float, limit: float) -> None:
        super().__init__(message)
        self.weight = weight
        self.limit = limit


class DuplicateKey(QueueError):
    """An item of the same key waits already, and `coalesce_policy` is to reject.

    Attributes:
        key: the key.
    """

    def __init__(self, message: str, *, key: object) -> None:
        super().__init__(message)
        self.key = key


class DrainTimeout(QueueError, TimeoutError):
    """The time for a drain was up with entries left; they wait, the queue is paused.

    Attributes:
        remaining: entries not settled yet [entries].
    """

    def __init__(self, message: str, *, remaining: int) -> None:
        super().__init__(message)
        self.remaining = remaining


class ItemError(BatchqError):
    """The failure of an item whose processor gave no exception for it.

    Attributes:
        item: what failed; None where it was let go already.
        attempt: the number of the attempt that failed [count, from 1]; 0 if none was made.
        retryable: what the result said; None where it said nothing.
        cause: the error as the processor gave it: text, None, any value.
    """

    def __init__(
        self,
        message: str,
        *,
        item: object = None,
        attempt: int = 0,
        retryable: bool | None = None,
        cause: object = None,
    ) -> None:
        super().__init__(message)
        self.item = item
        self.attempt = attempt
        self.retryable = retryable
        self.cause = cause


class Dropped(ItemError):
    """A full queue's `drop_policy` gave the item up; the processor never saw it."""


class EntryCancelled(ItemError):
    """The entry was cancelled, or its caller was; nothing more will come of it."""


class Expired(ItemError, TimeoutError):
    """The entry's time was up before it had a verdict: `queue_timeout`, `delivery_timeout`."""


class ProcessorError(BatchqError):
    """What went wrong in a call of a processor or handler."""


class BatchTimeout(ProcessorError, TimeoutError):
    """The call took longer than its time limit and was cancelled; may be retried."""


class ContractError(ProcessorError):
    """The call did not answer once per item.

    Every item of it without a verdict has failed and is not retried, for nobody knows
    what ran.
    """


class Throttled(ProcessorError):
    """Raised *by* a processor that was told to slow down, as by a 429.

    The items of the call return to their place and no attempt is spent.

    Attributes:
        retry_after: the queue starts nothing for so long [s, from 0].
    """

    def __init__(self, retry_after: float, message: str = "throttled") -> None:
        # As for every wait; written out, for what names all errors imports nothing.
        given: object = retry_after
        number = isinstance(given, int | float) and not isinstance(given, bool)
        if not number or not 0 <= retry_after <= _LONGEST_WAIT:
            raise OptionError(
                f"retry_after must be a number of seconds from 0 to {_LONGEST_WAIT} (100 years),"
                f" got {retry_after!r}"
            )
        super().__init__(f"{message}: again in {retry_after:g} s")
        self.retry_after = retry_after


class StrategyError(BatchqError):
    """A `batching_strategy` raised or returned what it may not; the default rule serves.

    Told to `on_error`; no item is lost or doubled.
    """


class HookError(BatchqError):
    """A hook raised, or returned something to await; told to `on_error`, changes nothing.

    Attributes:
        hook: the hook's name.
        original: what it raised.
    """

    def __init__(self, hook: str, original: Exception) -> None:
        super().__init__(f"{hook} raised {original!r}; the queue went on")
        self.hook = hook
        self.original = original


class PersistenceError(BatchqError):
    """A snapshot of a queue was not written, or could not be read whole.

    What could be written or read, was; a storage's own error is the cause.
    """


class StorageInUse(BatchqError):
    """Another live queue owns the `storage_key`; the system frees those of the dead."""


class JobError(BatchqError):
    """What went wrong with one durable job."""


class PayloadError(JobError, ValueError):
    """A payload does not encode, does not decode or does not fit its type; says where.

    It is refused, too, where it is larger than 1 MiB or nested more than 500 levels deep.
    """


class LeaseLost(JobError):
    """The job was claimed again, or settled, by somebody else; nothing was changed."""


class JobFailed(JobError):
    """The job whose result was asked for has failed or was cancelled.

    Attributes:
        job_id: which job.
        state: its final state.
        reason: why it is final, in one word (`exhausted`, `discarded`, ...).
    """

    def __init__(self, message: str, *, job_id: int, state: str, reason: str | None) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.state = state
        self.reason = reason


class UnknownHandler(JobError, LookupError):
    """No handler of that name is registered; the message lists those that are."""


class UnknownJob(JobError, LookupError):
    """The store has no job of that id: never had, or it was cleaned away."""


class JobStopped(BaseException):
    """A call of a handler is to stop, and has asked; raised by `context().check()`.

    No `Exception`, as the cancellation of an async handler is none: code that guards against
    errors must not stop it.
    """


class LifecycleError(JobError):
    """The life of a job has no such move; the message lists the legal ones."""


class StoreError(BatchqError):
    """The store could not do it; the driver's own error is the cause."""


class NotAStore(StoreError):
    """Not a database, or one with tables of our names that are not ours; left untouched."""


class StoreBusy(StoreError):
    """Others held the lock all the time; nothing was done, repeat as is."""


class StoreFull(StoreError):
    """No space or memory left; nothing is half-written, and it recovers without restart."""


class StoreUnavailable(StoreError):
    """The store can't be reached: of stores behind a network only.

    Attributes:
        outcome: `not sent`: nothing was done; `unknown`: it was done, or not.
    """

    def __init__(self, message: str, *, outcome: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class StoreBroken(StoreError):
    """The store can't be trusted any more, as after a failed fsync: stop using it."""


class Unsupported(StoreError):
    """This store can't do that, whatever its state; the message says which ones can."""


class StoreTooNew(StoreError):
    """The schema is newer than this code knows; the file is left untouched."""
