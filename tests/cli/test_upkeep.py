"""`batchq backup` and `batchq doctor`, as they are typed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from batchq.core.job import Group, NewJob
from batchq.stores.base import Store
from batchq.stores.url import open_store
from tests.stores.sqlite_kit import raw

Run = Callable[..., subprocess.CompletedProcess[str]]
HERE = {"BATCHQ_URL": "sqlite:///jobs.db"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_store(f"sqlite:///{tmp_path / 'jobs.db'}")) as opened:
        opened.commit(Group(enqueue=[NewJob("mail", "send", b"1")]))
        yield opened


def test_a_copy_is_a_store(batchq: Run, store: Store, tmp_path: Path) -> None:
    done = batchq("backup", "copy.db", **HERE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("copy.db: 0.1 MiB")
    with closing(open_store(f"sqlite:///{tmp_path / 'copy.db'}")) as copied:
        assert copied.counts() == store.counts()
    done = batchq("backup", "--json", "again.db", **HERE)
    size = (tmp_path / "again.db").stat().st_size
    assert json.loads(done.stdout) == {"destination": "again.db", "bytes": size}


def test_a_copy_that_is_there_stays(batchq: Run, store: Store, tmp_path: Path) -> None:
    (tmp_path / "copy.db").write_text("Dear diary")
    done = batchq("backup", "copy.db", **HERE)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "batchq: copy.db is there already: name a new file\n"
    assert (tmp_path / "copy.db").read_text() == "Dear diary"


def test_the_doctor_finds_a_store_sound(batchq: Run, store: Store) -> None:
    done = batchq("doctor", **HERE)
    assert done.returncode == 0
    assert "ok      content  quick_check finds nothing wrong" in done.stdout
    found = json.loads(batchq("doctor", "--json", **HERE).stdout)
    assert {each["name"]: each["verdict"] for each in found if each["name"] != "sqlite"} == {
        "files": "ok",
        "size": "ok",
        "content": "ok",
        "jobs": "ok",
        "schema": "ok",
    }


def test_the_doctor_finds_a_corrupt_file_broken(batchq: Run, tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with closing(open_store(f"sqlite:///{path}")) as store:
        store.commit(Group(enqueue=[NewJob("mail", "send", b"x" * 500)] * 500))
    with path.open("r+b") as file:  # nobody is connected
        file.seek(-40_000, 2)
        file.write(b"\xff" * 30_000)
    done = batchq("doctor", **HERE)
    assert done.returncode == 1
    assert "broken  content" in done.stdout or "is corrupt" in done.stderr
    advice = "stop the workers and put a copy that `batchq backup` made in its place"
    assert advice in done.stdout + done.stderr
    assert ".recover" in done.stdout + done.stderr


def test_the_doctor_says_what_to_do_where_there_is_no_telling_what_the_file_is(
    batchq: Run, store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "jobs.db"
    store.close()
    whole = path.read_bytes()
    for content, code in (
        (b"?" * len(whole), 2),
        (whole[:100] + b"\xff" * (len(whole) - 100), 1),
        (whole[:4096], 1),
    ):
        path.write_bytes(content)
        done = batchq("doctor", **HERE)
        assert (done.returncode, done.stdout.count("broken")) in {(code, 0), (1, 1)}, done
        assert "`batchq backup` made" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_the_doctor_names_jobs_that_can_not_be_read(
    batchq: Run, store: Store, tmp_path: Path
) -> None:
    good = NewJob("mail", "send", b"1", tags=("red",))
    store.commit(Group(enqueue=[good] * 40))
    raw(
        tmp_path / "jobs.db",
        "UPDATE batchq_jobs SET payload = CAST(x'22ff22' AS TEXT) WHERE id = 2",
        "UPDATE batchq_jobs SET tags = '{bad', payload = '{' WHERE id = 3",
        "UPDATE batchq_jobs SET state = 'weird' WHERE id = 5",
        "UPDATE batchq_jobs SET due_at = NULL WHERE id = 7",
    )
    done = batchq("doctor", **HERE)
    assert (done.returncode, done.stderr) == (1, "")
    [line] = [line for line in done.stdout.splitlines() if line.startswith("broken")]
    assert "4 of 41 can't be read" in line
    assert "2 (payload), 3 (tags, payload), 5 (state), 7 (due_at). No other" in line
    raw(tmp_path / "jobs.db", "UPDATE batchq_jobs SET value = '\x1b[2J'")
    found = json.loads(batchq("doctor", "--json", **HERE).stdout)
    [jobs] = [each for each in found if each["name"] == "jobs"]
    assert jobs["verdict"] == "broken"
    assert jobs["text"].startswith("41 of 41 can't be read")
    assert "20 (value), ..." in jobs["text"]
    assert "21" not in jobs["text"]


@pytest.mark.parametrize("words", [("backup", "copy.db"), ("doctor",)], ids=["backup", "doctor"])
def test_what_is_no_file_is_refused(batchq: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    for url in ("memory:", "sqlite:///jobs.db"):
        done = batchq(*words, "--url", url)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
