"""Who gets the newsletter: a CSV as people really write it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchq.cli.demo.recipients import (
    BadRow,
    Recipient,
    RecipientsFile,
    make_recipients,
    read_recipients,
)
from batchq.cli.refusal import Refusal

Read = Callable[[str | bytes], RecipientsFile]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def write_and_read(content: str | bytes) -> RecipientsFile:
        path = tmp_path / "people.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_recipients(path)

    return write_and_read


def test_commas_in_quotes_accents_and_doubled_quotes_are_part_of_a_name(read: Read) -> None:
    found = read(
        'email,name\nana@example.com,"Silva, Ana"\njoao@example.com,"João ""Jô"" Gonçalves"\n'
    )
    assert found.recipients == [
        Recipient("ana@example.com", "Silva, Ana"),
        Recipient("joao@example.com", 'João "Jô" Gonçalves'),
    ]
    assert found.bad == found.repeated == []


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffemail,name\nana@example.com,Zoë\n",
        "email;name\r\nana@example.com;Zoë\r\n",
        "email\tname\rana@example.com\tZoë",
        " Name , E-MAIL , EMAIL \n Zoë , x ,  ana@example.com \n",
        '"email", "name"\n"ana@example.com", "Zoë"\n',
        "\n\nemail,name\n\n,\nana@example.com,Zoë,,\n\n",
        "\ufeffemail,name\nana@example.com,Zoë\n".encode("utf-16-le"),
    ],
    ids=["mark", "semicolons", "tabs", "order and case", "quotes", "empty lines", "utf-16"],
)
def test_one_recipient_written_in_many_ways_is_the_same(read: Read, content: str | bytes) -> None:
    found = read(content)
    assert found.recipients == [Recipient("ana@example.com", "Zoë")]
    assert found.bad == []


def test_a_name_may_be_missing(read: Read) -> None:
    expected = [Recipient("ana@example.com", ""), Recipient("rui@example.com", "")]
    assert read("email\nana@example.com\nrui@example.com").recipients == expected
    assert read("email,name\nana@example.com\nrui@example.com,\n").recipients == expected


def test_addresses_in_any_script_are_written_as_the_envelope_wants_them(read: Read) -> None:
    found = read("email,name\nana@Bücher.example,Ana\njosé@example.com,José\n")
    assert [recipient.email for recipient in found.recipients] == [
        "ana@xn--bcher-kva.example",
        "josé@example.com",
    ]


def test_a_recipient_listed_twice_is_reported_and_kept_once(read: Read) -> None:
    found = read("email,name\nAna@Example.com,Ana\nrui@bücher.example,Rui\n"
                 "ana@example.COM,Ana again\nrui@xn--bcher-kva.example,Rui again\n")  # fmt: skip
    assert found.recipients == [
        Recipient("Ana@example.com", "Ana"),
        Recipient("rui@xn--bcher-kva.example", "Rui"),
    ]
    assert found.repeated == [
        BadRow(4, "ana@example.COM,Ana again", "as on line 2"),
        BadRow(5, "rui@xn--bcher-kva.example,Rui again", "as on line 3"),
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",Nobody", "no address"),
        ("nobody,Nobody", "an address is name@domain"),
        ("a b@example.com,x", "a character before the @"),
        ("ana@exa mple.com,x", "the domain cannot be"),
        ("ana@localhost,x", "the domain is not complete"),
        ("Ana <ana@example.com>,x", "a character before the @"),
        ("rui@example.com,Silva, Rui", "3 fields where the first line names 2"),
        ("rui@example.com,A\x00B", "a control character in the name"),
        ('rui@example.com,"Rui', "a quote is opened and not closed"),
    ],
)
def test_a_bad_row_is_listed_with_its_line_and_the_rest_goes_on(
    read: Read, row: str, reason: str
) -> None:
    found = read(f"email,name\nana@example.com,Ana\n{row}\neva@example.com,Eva\n")
    assert [recipient.name for recipient in found.recipients] == ["Ana", "Eva"]
    [bad] = found.bad
    assert bad.line == 3
    assert reason in bad.reason


def test_bytes_that_are_not_utf8_spoil_their_row_alone(read: Read) -> None:
    found = read(b"email,name\nana@example.com,Jo\xe3o\neva@example.com,Eva\n")
    assert found.recipients == [Recipient("eva@example.com", "Eva")]
    assert [(bad.line, bad.reason) for bad in found.bad] == [(2, "not UTF-8")]
    assert found.bad[0].text.isprintable()


def test_lines_are_counted_as_an_editor_counts_them(read: Read) -> None:
    found = read('email,name\nana@example.com,"Ana\nMaria"\r\neva@example.com,E\u2028va\nbad\n')
    assert [recipient.name for recipient in found.recipients] == ["Ana Maria", "E va"]
    assert [bad.line for bad in found.bad] == [5]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("mail,name\nana@example.com,Ana\n", "has no column email"),
        ("ana@example.com,Ana\n", "has no column email"),
        ('"email,name\nana@example.com,Ana\n', "has no column email"),
        ("email,name\n", "not one recipient"),
        ("email,name\nnobody,x\n", "line 2: an address is name@domain"),
    ],
)
def test_a_file_of_no_use_is_refused_in_one_line(read: Read, content: str, reason: str) -> None:
    with pytest.raises(Refusal) as caught:
        read(content)
    assert reason in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 2


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="No such file"):
        read_recipients(tmp_path / "nowhere.csv")
    with pytest.raises(Refusal, match="Is a directory"):
        read_recipients(tmp_path)


@given(rows=st.lists(st.text(max_size=30), max_size=8))
def test_every_line_is_used_reported_or_empty(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "people.csv"
    body = "\n".join(["email,name", "ana@example.com,Ana", *rows])
    path.write_bytes(body.encode("utf-8", "replace"))
    found = read_recipients(path)
    bad = [row.line for row in found.bad]
    repeated = [row.line for row in found.repeated]
    assert bad == sorted(set(bad))
    assert not set(bad) & set(repeated)
    assert all(line > 2 for line in bad + repeated)
    assert len({recipient.email.casefold() for recipient in found.recipients}) == len(
        found.recipients
    )


def test_a_made_list_is_the_same_for_the_same_seed_and_names_nobody_twice() -> None:
    people = make_recipients(3_000, seed=7)
    assert people == make_recipients(3_000, seed=7)
    assert people != make_recipients(3_000, seed=8)
    assert len({person.email.casefold() for person in people}) == 3_000
    assert all(
        person.email.rpartition(".")[2] in {"example", "com", "net", "org"} for person in people
    )
    assert any(not person.name.isascii() for person in people)
    assert any("xn--" in person.email for person in people)
