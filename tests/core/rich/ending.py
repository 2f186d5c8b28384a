"""What becomes of calls, by the model: verdicts, retries, bisects, interruptions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from tests.core.rich.starting import Starting
from tests.core.rich.terms import Answer, Call, Item, Split

__all__ = ["FAILED", "NOTHING", "OK", "Ending"]

OK = Answer(success=True)
FAILED = Answer(success=False)
NOTHING = Answer(success=None)


@attrs.define(eq=False)
class Ending(Starting):
    """A queue whose calls end."""

    def returned(self, call: Call, answers: Sequence[Answer], now: float, draw: float) -> None:
        """Let a call return."""
        if call.split is not None and not call.over:
            call.split.outage = False
        self.end(call, dict(zip(call.items, answers, strict=True)), now, draw)

    def raised(self, call: Call, *, transient: bool, now: float, draw: float) -> None:
        """Let a call raise, with an error that any entry would get in an outage, or not."""
        transient = (
            transient
            if self.terms.retries is None or self.terms.check is None
            else (self.terms.check)
        )
        left = [item for item in call.items if item.flies and item.verdict is None]
        if call.over:
            return
        if call.split is not None:
            answers = self.part_raised(call, call.split, left, transient=transient)
        elif len(left) > 1 and self.splits(left):
            most = 2 * (math.ceil(math.log2(len(left))) + 1)
            call.split = Split(self.halves(left), transient, most, outage=transient)
            answers = {}
        else:
            answers = dict.fromkeys(call.items, FAILED)
        self.end(call, answers, now, draw)

    def splits(self, left: list[Item]) -> bool:
        if self.terms.bisect == "exhausted":
            return not all(self.again(item, FAILED) for item in left)
        return self.terms.bisect == "immediate"

    def part_raised(
        self, call: Call, split: Split, left: list[Item], *, transient: bool
    ) -> dict[Item, Answer]:
        split.raised += 1
        split.outage = split.outage and transient
        if split.outage and split.raised >= split.most:
            rest, split.parts = split.left(), []
            return dict.fromkeys([*call.items, *rest], FAILED)
        if len(call.items) == 1 and left:
            left[0].solo = True
            return {left[0]: FAILED}
        split.parts = [*self.halves(left), *split.parts]
        return {}

    def throttled(self, call: Call, after: float, now: float, draw: float) -> None:
        """Let a call be throttled: it is made again, once the processor allows."""
        self.not_before = max(self.not_before, now + after)
        if call.over:
            return
        if call.split is None:
            self.end(call, dict.fromkeys(call.items, NOTHING), now, draw)
            return
        call.split.parts.insert(0, call.items)
        self.end(call, {}, now, draw)

    def end(
        self,
        call: Call,
        answers: dict[Item, Answer],
        now: float,
        draw: float,
        *,
        learns: bool = True,
    ) -> None:
        """Judge the entries of a call; those without an answer stay in flight."""
        if call.over:
            return
        if learns and self.rich:
            self.slack += (0.2 if self.slack else 1.0) * (now - call.at - self.slack)
        again = []
        for item in list(dict.fromkeys([*call.items, *answers])):
            answer = item.verdict or answers.get(item)
            if item.flies and answer is not None:
                item.verdict = None
                self.judge(item, answer, now, draw)
                again += [item] if item.waits else []
        call.over = True
        if call.split is not None and self.terms.ordered and again:
            self.give_back(self.give_up(call.split))
        self.let_in(now)

    def release(self, call: Call) -> None:
        """Free the slot of a call, or let the next part wait for its start."""
        self.calls.remove(call)
        if call.split is not None and call.split.left():
            self.torn.append(call.root or call)

    # Verdicts.

    def early(self, call: Call, item: Item, answer: Answer) -> None:
        """Fix a verdict during the call."""
        if call.over or not item.flies or item.verdict is not None:
            return
        item.verdict = answer
        if answer.success or (answer.success is False and not self.again(item, answer)):
            item.attempts += 1
            self.settle(item, "succeeded" if answer.success else "failed")

    def judge(self, item: Item, answer: Answer, now: float, draw: float) -> None:
        if answer.success is None:
            self.no_verdict(item, answer.after, now)
            return
        again = not answer.success and self.again(item, answer)
        item.attempts += 1
        if not again:
            self.settle(item, "succeeded" if answer.success else "failed")
            return
        due = now + max(self.delay(item.attempts, draw), answer.after or 0)
        if due > item.ends_by:
            self.settle(item, "expired")
            return
        self.retries += 1
        self.hold_back(item, due)

    def no_verdict(self, item: Item, after: float | None, now: float) -> None:
        if item.abandoned:
            self.settle(item, "cancelled")
        elif after is None:
            self.return_to_its_place(item)
        else:
            self.hold_back(item, now + after)

    def again(self, item: Item, answer: Answer) -> bool:
        """Say whether a failed entry is tried again."""
        if self.terms.retries is None or item.attempts >= self.terms.retries or item.abandoned:
            return False
        if answer.retryable is not None:
            return answer.retryable
        return self.terms.check is not False

    def delay(self, attempts: int, draw: float) -> float:
        whole = [*self.terms.schedule, *[self.terms.schedule[-1]] * attempts][attempts - 1]
        return whole * {"full": draw, "equal": (1 + draw) / 2, "none": 1.0}[self.terms.jitter]

    # Interruptions.

    def give_up(self, split: Split) -> list[Item]:
        left, split.parts = split.left(), []
        return left

    def give_back(self, items: list[Item]) -> None:
        for item in items:
            if item.flies:
                self.no_verdict(item, None, 0.0)

    def interrupt(self, call: Call, now: float) -> None:
        """End a call without a verdict, and the bisect that it is part of."""
        left = [] if call.split is None else self.give_up(call.split)
        self.end(call, dict.fromkeys(call.items, NOTHING), now, 0.0, learns=False)
        self.give_back(left)
        self.let_in(now)

    def stop_draining(self, now: float) -> None:
        self.draining, self.paused = False, True
        for call in [call for call in self.calls if not call.over]:
            self.interrupt(call, now)
        for root in self.torn:
            if root.split is not None:
                self.give_back(self.give_up(root.split))
        self.torn = []

    def restore(self, items: list[Item], now: float) -> None:
        """Begin with what another queue had when it was cut off."""
        for item in items:
            again = item.attempts or (item.status == "delayed" and item.until <= now)
            item.callers, item.abandoned, item.verdict, item.due = 1, False, None, None
            item.early, item.since = item.deadline, self.tick()
            self.items.append(item)
            if item.status == "delayed" and item.until > now:
                continue
            self.enter(item)
            self.watch(item, now)
            if again:
                self.mark(item, "retry" if item.attempts else "delay")

    def halves(self, items: list[Item]) -> list[list[Item]]:
        """Split entries into the first half, rounded up, and the rest."""
        middle = (len(items) + 1) // 2
        parts = [items[:middle], items[middle:]]
        if items:
            self.told += [[item.number for item in part] for part in parts]
        return parts
