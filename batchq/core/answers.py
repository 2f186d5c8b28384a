"""What a processor returned, read as one answer per item."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from batchq.core.batch import Batch
from batchq.core.result import Result
from batchq.errors import ContractError

__all__ = ["read_answer", "read_answers"]

_FIELDS: Final = frozenset(Result.__struct_fields__)
# One answer, though its parts could be taken for several.
_TEXTS: Final = (str, bytes, bytearray, memoryview)
_OK: Final[Result[Any]] = Result(success=True)


def read_answer(answer: object) -> Result[Any]:
    """Read one answer of a batch as a `Result`.

    A `Result` is itself; an exception is a failure; a dict with `success` and no key but
    a Result's fields is read as one; anything else is a success with that value.
    Such a dict that says `success` in words fails for good: "false" would count as true.
    """
    if answer is None:
        return _OK
    if type(answer) is Result:
        return answer
    if isinstance(answer, Exception):
        return Result(success=False, error=answer)
    if isinstance(answer, dict) and "success" in answer and answer.keys() <= _FIELDS:
        # What other code calls true or false may be 1 or 0, or a number type's own.
        said = answer["success"]
        if isinstance(said, _TEXTS):
            wrong = f"success must be true, false or None, not text, got {said!r}"
            return Result.discard(ContractError(wrong))
        return Result(**answer | {"success": None if said is None else bool(said)})
    return Result(success=True, value=answer)


def read_answers(batch: Batch[Any], answers: object) -> Sequence[object] | None:
    """Check that a processor answered once per item.

    Args:
        batch: the batch that the processor was called with.
        answers: what it returned: a sequence of exactly one answer per item, in order; a
            mapping from `entry.id` that names every unsettled entry and no stranger; or
            None.

    Returns:
        The answers, one per item, in order, not read one by one yet; None: all succeeded.

    Raises:
        ContractError: it returned something else.
    """
    if answers is None:
        return None
    if isinstance(answers, list | tuple):
        found = answers
    elif isinstance(answers, Mapping):
        return _by_id(batch, answers)
    elif isinstance(answers, Sequence) and not isinstance(answers, _TEXTS):
        found = list(answers)
    else:
        kind = "a generator" if isinstance(answers, Iterator) else f"{type(answers).__name__}"
        if inspect.iscoroutine(answers):
            answers.close()  # or Python warns that nobody awaited it
            kind = "a coroutine, which it did not await"
        raise ContractError(
            f"the processor must return a sequence with one answer per item, a mapping by"
            f" entry id, or None; it returned {kind}"
        )
    if len(found) != len(batch):
        raise ContractError(
            f"the processor got {len(batch)} items and returned {len(found)} answers;"
            " it must return exactly one per item, in order"
        )
    return found


def _by_id(batch: Batch[Any], answers: Mapping[Any, object]) -> Sequence[object]:
    ids = {entry.id for entry in batch.entries}
    strangers = [key for key in answers if key not in ids]
    missing = [entry.id for entry in batch.entries if not entry.settled and entry.id not in answers]
    if strangers or missing:
        raise ContractError(
            f"the processor's mapping must name every entry of the batch by its id and no"
            f" other: missing {missing[:5]}, unknown {strangers[:5]}"
        )
    return [answers.get(entry.id) for entry in batch.entries]
