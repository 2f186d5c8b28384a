"""What histories of a store are made of, for Hypothesis to draw from."""

from __future__ import annotations

from typing import Any, Final

from batchq.core.job import ClaimRequest, JobKey, KeyScope, NewJob
from batchq.core.lifecycle import JobState
from batchq.core.record import Beat, JobFilter
from batchq.errors import MissingExtra

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise MissingExtra("batchq.testing.conformance", "hypothesis", "test") from error

__all__ = [
    "BEATS",
    "FILTERS",
    "HANDLERS",
    "KEYS",
    "LEASES",
    "LIMITS",
    "MESSAGES",
    "NEW_JOBS",
    "QUEUES",
    "REASONS",
    "REQUESTS",
    "RETENTIONS",
    "SCOPES",
    "SECONDS",
    "STATUSES",
    "TAGS",
    "TEXTS",
    "TIMES",
    "WORKERS",
]

QUEUES: Final = st.sampled_from(["mail", "other"])
HANDLERS: Final = st.sampled_from(["send", "resize"])
WORKERS: Final = st.sampled_from(["ada", "bob"])
SECONDS: Final = st.sampled_from([0.0, 0.25, 1.0, 4.0])
LEASES: Final = st.sampled_from([0.25, 1.0, 4.0])
LIMITS: Final = st.sampled_from([1, 2, 3, 100])
TAGS: Final = st.sampled_from(["red", "big", "ünï"])
MESSAGES: Final = st.sampled_from(["boom", "", "ünïcödé \x00 \n"])
STATUSES: Final = st.sampled_from(
    [None, *(state.value for state in JobState), "scheduled", "retrying", "stalled"]
)
SCOPES: Final = st.sampled_from([KeyScope.WAITING, KeyScope.LIVE, KeyScope.KEPT])
TEXTS: Final = st.sampled_from(["1", "2", "é"])
KEYS: Final = st.builds(JobKey, TEXTS, SCOPES, replace=st.booleans()) | st.builds(
    JobKey, TEXTS, st.just(KeyScope.TIME), LEASES
)
NEW_JOBS: Final = st.builds(
    NewJob,
    queue=QUEUES,
    handler=HANDLERS,
    payload=st.binary(max_size=4),
    priority=st.sampled_from([0, 2, 9]),
    delay=SECONDS,
    max_attempts=st.sampled_from([1, 2, 3, None]),
    key=st.none() | KEYS,
    expires=st.none() | SECONDS,
    tags=st.lists(TAGS, max_size=2).map(tuple),
)
REQUESTS: Final = st.builds(
    ClaimRequest,
    queue=QUEUES,
    handlers=st.lists(HANDLERS, max_size=2).map(tuple),
    limit=LIMITS,
    lease=LEASES,
    worker=WORKERS,
    suspect=st.booleans(),
)
BEATS: Final = st.builds(
    Beat,
    worker=WORKERS,
    host=st.just("h"),
    pid=st.integers(1, 9),
    version=st.just("1"),
    queues=st.dictionaries(QUEUES, st.integers(1, 9), max_size=2),
    handlers=st.lists(HANDLERS, max_size=2).map(tuple),
    held=st.integers(0, 9),
    lag=SECONDS,
)
TIMES: Final = st.sampled_from([4096.0, 4097.0, 4100.0])


def _filter(given: dict[str, Any]) -> JobFilter:
    return JobFilter(**given)


_FILTERS: Final = st.fixed_dictionaries(
    {},
    optional={
        "status": STATUSES,
        "queue": QUEUES,
        "handler": HANDLERS,
        "tag": TAGS,
        "key": TEXTS,
        "first_id": st.integers(0, 9),
        "last_id": st.integers(0, 9),
        "stored_since": TIMES,
        "stored_before": TIMES,
        "ended_since": TIMES,
        "ended_before": TIMES,
    },
)
FILTERS: Final = _FILTERS.map(_filter)
REASONS: Final = st.sampled_from(["user", "late"])
RETENTIONS: Final = st.dictionaries(
    st.sampled_from([state for state in JobState if state.final]), SECONDS
)
