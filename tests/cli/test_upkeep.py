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
    assert "broken" in done.stdout or "can't be trusted" in done.stderr


@pytest.mark.parametrize("words", [("backup", "copy.db"), ("doctor",)], ids=["backup", "doctor"])
def test_what_is_no_file_is_refused(batchq: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    for url in ("memory:", "sqlite:///jobs.db"):
        done = batchq(*words, "--url", url)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
