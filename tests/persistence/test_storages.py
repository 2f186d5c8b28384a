"""The storages of snapshots: real files, real processes, real kills."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchq.errors import OptionError, StorageInUse
from batchq.persistence import FileStorage, SqliteStorage

AnyStorage = FileStorage | SqliteStorage
KINDS = ("file", "sqlite")
RECORDS = st.lists(st.binary(max_size=20).map(lambda record: record.replace(b"\n", b"")))
# One folder for all examples: each saves before it looks.
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def storage_of(kind: str, folder: Path) -> AnyStorage:
    return FileStorage(folder / "kept") if kind == "file" else SqliteStorage(folder / "kept.db")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def storage(kind: str, tmp_path: Path) -> AnyStorage:
    return storage_of(kind, tmp_path)


def run(folder: Path, script: str, *arguments: str) -> subprocess.Popen[str]:
    """Run a script in a process of its own; it has `storage_of` and `folder`."""
    head = f"""
        import os, sys, time
        from pathlib import Path
        from batchq.errors import StorageInUse
        from batchq.persistence import FileStorage, SqliteStorage
        folder = Path({str(folder)!r})
        def storage_of(kind):
            return FileStorage(folder / "kept") if kind == "file" else SqliteStorage(folder / "kept.db")
        old = [b"old %d" % n for n in range(2000)]
        new = [b"new %d" % n for n in range(1500)]
    """  # noqa: E501 - as short as it can be, and a script reads best in one piece
    source = textwrap.dedent(head) + textwrap.dedent(script)
    return subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def owner(kind: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Return a process that owns the key "k" until it is killed."""
    process = run(
        tmp_path,
        """
        storage_of(sys.argv[1]).acquire("k")
        print("owned", flush=True)
        time.sleep(600)
        """,
        kind,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "owned\n"
    yield process
    process.kill()
    process.communicate()


OLD = [b"old %d" % n for n in range(2000)]
NEW = [b"new %d" % n for n in range(1500)]


@SHARED
@given(RECORDS)
def test_what_was_saved_is_loaded_in_order(storage: AnyStorage, records: list[bytes]) -> None:
    storage.save("k", records)
    assert storage.load("k") == records


def test_a_key_that_was_never_saved_has_no_records(storage: AnyStorage) -> None:
    assert storage.load("k") == []
    storage.save("another", [b"1"])
    assert storage.load("k") == []


@pytest.mark.parametrize("key", ["a/b", "..", "a b", "ä", "%2F", "", "k.quarantine"])
def test_a_key_may_be_any_text(storage: AnyStorage, key: str) -> None:
    storage.save(key, [b"1"])
    storage.save("k", [b"2"])
    assert storage.load(key) == [b"1"]
    storage.acquire(key)
    storage.release(key)


def test_nobody_else_may_read_what_is_saved_in_files(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path)
    storage.acquire("k")
    storage.save("k", [b"1"])
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}
    storage.release("k")


def test_a_folder_in_which_anybody_may_replace_a_snapshot_is_refused(tmp_path: Path) -> None:
    storages = (FileStorage(tmp_path), SqliteStorage(tmp_path / "snapshots.db"))
    tmp_path.chmod(0o777)
    for storage in storages:
        with pytest.raises(PermissionError, match=r"anybody may write to .*: chmod o-w"):
            storage.acquire("k")
    assert list(tmp_path.iterdir()) == []
    tmp_path.chmod(0o1777)
    for storage in storages:
        storage.acquire("k")
        storage.release("k")


def test_a_folder_of_snapshots_is_made_for_its_owner_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        storage = FileStorage(tmp_path / "new")
        storage.acquire("k")
        storage.save("k", [b"1"])
        storage.release("k")
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_a_record_with_a_line_break_is_refused(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path)
    storage.save("k", [b"1"])
    with pytest.raises(ValueError, match="one line"):
        storage.save("k", [b"1\n2"])
    assert storage.load("k") == [b"1"]


@pytest.mark.parametrize("path", [":memory:", ""])
def test_sqlite_in_memory_is_refused(path: str) -> None:
    with pytest.raises(OptionError, match="must name a file"):
        SqliteStorage(path)


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Ana, " * 100)
    storage = SqliteStorage(path)
    for use in (lambda: storage.load("k"), lambda: storage.save("k", [])):
        with pytest.raises(sqlite3.DatabaseError):
            use()
    assert path.read_text() == "Dear Ana, " * 100


def test_snapshots_are_guests_in_another_s_database(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (n)")
        connection.execute("INSERT INTO theirs VALUES (1)")
        connection.commit()
    SqliteStorage(path).save("k", [b"1"])
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT n FROM theirs").fetchall() == [(1,)]
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    assert names - {"theirs"} == {"batchq_snapshots"}


# Damage: a file's lines are checked one by one.


@SHARED
@given(
    st.lists(st.binary(max_size=9).map(lambda it: it.replace(b"\n", b"")), min_size=1), st.data()
)
def test_a_torn_file_gives_what_is_whole_and_says_that_something_is_not(
    tmp_path: Path, records: list[bytes], data: st.DataObject
) -> None:
    storage = FileStorage(tmp_path)
    storage.save("k", records)
    (path,) = tmp_path.glob("*.snapshot")
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content) - 2))  # without its last line break it is whole
    path.write_bytes(content[:cut])
    loaded = storage.load("k")
    assert loaded[: len(records)] != records
    assert loaded


@SHARED
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_costs_no_other_record(tmp_path: Path, place: int, change: int) -> None:
    records = [b'{"id":1}', b'{"id":2}', b'{"id":3}']
    storage = FileStorage(tmp_path)
    storage.save("k", records)
    (path,) = tmp_path.glob("*.snapshot")
    content = bytearray(path.read_bytes())
    place %= len(content)
    content[place] ^= change
    path.write_bytes(content)
    loaded = storage.load("k")
    if re.fullmatch(rb"batchq snapshot 1, \d+ records", content.split(b"\n")[0]):
        assert len(set(records) & set(loaded)) >= 1
        assert loaded != records
    else:  # a file of another kind, or of another version: nothing of it is believed
        assert not set(records) & set(loaded)


# Owners.


def test_two_owners_of_one_key_are_refused(kind: str, tmp_path: Path) -> None:
    first, second = storage_of(kind, tmp_path), storage_of(kind, tmp_path)
    first.acquire("k")
    with pytest.raises(StorageInUse, match="'k' has another live owner"):
        second.acquire("k")
    second.acquire("another")
    first.release("k")
    first.release("k")
    second.acquire("k")
    second.release("k")
    second.release("another")


def test_an_owner_in_another_process_is_seen_and_its_death_too(
    kind: str, tmp_path: Path, owner: subprocess.Popen[str]
) -> None:
    storage = storage_of(kind, tmp_path)
    with pytest.raises(StorageInUse):
        storage.acquire("k")
    owner.kill()
    owner.wait()
    storage.acquire("k")
    storage.release("k")


def test_a_forked_child_does_not_keep_the_key_of_a_parent_that_died(
    kind: str, tmp_path: Path
) -> None:
    process = run(
        tmp_path,
        """
        storage_of(sys.argv[1]).acquire("k")
        child = os.fork()
        if not child:
            time.sleep(600)
        print(child, flush=True)
        time.sleep(600)
        """,
        kind,
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    time.sleep(0.2)  # the child's hooks after the fork
    process.kill()
    process.wait()
    try:
        storage = storage_of(kind, tmp_path)
        storage.acquire("k")
        storage.release("k")
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()


# Crashes: I26, a crash at any point of a save leaves the old snapshot or the new one, whole.


@pytest.mark.parametrize("delay", [0.0, 0.004, 0.013, 0.03, 0.1])
def test_a_kill_in_the_middle_of_saving_leaves_a_whole_snapshot(
    kind: str, tmp_path: Path, delay: float
) -> None:
    process = run(
        tmp_path,
        """
        storage = storage_of(sys.argv[1])
        storage.acquire("k")
        storage.save("k", old)
        print("saved", flush=True)
        while True:
            storage.save("k", new)
            storage.save("k", old)
        """,
        kind,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "saved\n"
    time.sleep(delay)
    process.kill()
    process.communicate()
    storage = storage_of(kind, tmp_path)
    storage.acquire("k")  # the dead own nothing
    assert storage.load("k") in (OLD, NEW)
    storage.save("k", NEW)
    assert storage.load("k") == NEW
    storage.release("k")


def test_a_crash_at_any_line_of_a_save_leaves_the_old_snapshot_or_the_new_one(
    kind: str, tmp_path: Path
) -> None:
    process = run(
        tmp_path,
        """
        def crash_at(count):
            def trace(frame, event, argument):
                nonlocal count
                if "persistence" not in frame.f_code.co_filename:
                    return None
                if event == "line":
                    count -= 1
                    if not count:
                        os._exit(1)
                return trace
            return trace

        kind, old, new = sys.argv[1], old[:3], new[:2]
        found, line, status = [], 0, 1
        while status:
            line += 1
            storage_of(kind).save("k", old)
            child = os.fork()
            if not child:
                storage = storage_of(kind)
                sys.settrace(crash_at(line))
                storage.save("k", new)
                os._exit(0)
            status = os.waitpid(child, 0)[1]
            loaded = storage_of(kind).load("k")
            found.append("old" if loaded == old else "new" if loaded == new else "torn")
        print(*found)
        """,
        kind,
    )
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    found = out.split()
    turn = found.index("new")
    assert found == ["old"] * turn + ["new"] * (len(found) - turn)
    assert turn > 5
    assert found[-1] == "new"


def test_a_save_that_fails_leaves_the_old_snapshot(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path)
    storage.save("k", [b"1"])
    (tmp_path / "k.snapshot.tmp").mkdir()
    with pytest.raises(OSError, match="directory"):
        storage.save("k", [b"2"])
    assert storage.load("k") == [b"1"]
