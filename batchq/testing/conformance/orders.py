"""Every history in which people order something, too."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from batchq.core.lifecycle import JobState
from batchq.core.record import Beat, JobFilter, Note
from batchq.testing.conformance.draws import (
    BEATS,
    FILTERS,
    LIMITS,
    QUEUES,
    REASONS,
    RETENTIONS,
    SECONDS,
)
from batchq.testing.conformance.machine import StoreMachine

__all__ = ["OrderMachine"]


class OrderMachine(StoreMachine):
    """Gives orders between the groups."""

    @rule(data=st.data(), reason=REASONS)
    def people_cancel_jobs(self, data: st.DataObject, reason: str) -> None:
        ids = data.draw(self.ids())
        changed = self.store.cancel(ids, reason)
        assert (list(changed.ids), changed.next) == (ids, None)
        assert [each.value for each in changed.answers] == self.model.cancel(ids, reason)

    @rule(data=st.data())
    def people_retry_jobs(self, data: st.DataObject) -> None:
        ids = data.draw(self.ids())
        answers = self.store.retry(ids).answers
        assert [each.value for each in answers] == self.model.retry(ids)

    @rule(where=FILTERS, size=LIMITS, retry=st.booleans())
    def people_change_what_a_filter_means(
        self, where: JobFilter, size: int, *, retry: bool
    ) -> None:
        after: int | None = 0
        while after is not None:
            expected = [id_ for id_ in self.model.find(where) if id_ > after][:size]
            if retry:
                changed = self.store.retry(where, after=after, limit=size)
                answers = self.model.retry(expected)
            else:
                changed = self.store.cancel(where, after=after, limit=size)
                answers = self.model.cancel(expected, "user")
            assert list(changed.ids) == expected
            assert [each.value for each in changed.answers] == answers
            assert (changed.next is None) == (len(expected) < size)
            after = changed.next

    @rule(data=st.data())
    def people_delete_jobs(self, data: st.DataObject) -> None:
        ids = data.draw(self.ids())
        assert [each.value for each in self.store.delete(ids)] == self.model.delete(ids)

    @rule(retention=RETENTIONS, size=LIMITS)
    def old_jobs_are_cleaned_away(self, retention: dict[JobState, float], size: int) -> None:
        deleted, after = 0, 0
        while True:
            cleaned = self.store.clean(retention, after=after, limit=size)
            deleted += cleaned.deleted
            if cleaned.next is None:
                break
            assert cleaned.next > after
            after = cleaned.next
        plain = {state.value: seconds for state, seconds in retention.items()}
        assert deleted == self.model.clean(plain)

    @rule(queue=QUEUES, paused=st.booleans())
    def people_pause_a_queue(self, queue: str, *, paused: bool) -> None:
        self.store.set_queue(queue, paused=paused)
        self.model.paused[queue] = paused

    @precondition(lambda self: self.issued)
    @rule(data=st.data())
    def handlers_say_how_far_they_are(self, data: st.DataObject) -> None:
        note = st.builds(
            Note, self.receipts(), st.none() | SECONDS, st.none() | st.sampled_from(["a", "b"])
        )
        notes = data.draw(st.lists(note, max_size=3))
        assert list(self.store.record(notes)) == self.model.record(notes)

    @rule(beat=BEATS)
    def a_worker_beats(self, beat: Beat) -> None:
        self.store.beat(beat)
        self.model.beat(beat)
