"""Who gets the newsletter: read from a CSV file, or made from a seed.

A row that is no recipient is reported with its line and a reason, and the rest goes on.
Two addresses are one recipient if they differ in upper and lower case alone: strictly the
part before the @ may tell them apart, but no mail service of weight does, and nobody
wants the same letter twice.
"""

from __future__ import annotations

import csv
import random
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

from batchq.cli.refusal import Refusal
from batchq.handlers.email import mail_address

__all__ = [
    "BadRow",
    "Recipient",
    "RecipientsFile",
    "make_recipients",
    "read_recipients",
]

_DELIMITERS: Final = ",;\t|"
# A quoted field may run over several lines; one that runs on for more was never closed.
_MAX_LINES: Final = 5
_SHOWN: Final = 60
# str.splitlines knows ends of line that no editor counts.
_LINE_END: Final = re.compile(r"\r\n|\n|\r")


@attrs.frozen
class Recipient:
    """One who gets the newsletter.

    Attributes:
        email: the address, as the envelope has it.
        name: as the letter addresses them; may be empty.
    """

    email: str
    name: str


@attrs.frozen
class BadRow:
    """A row that is not used.

    Attributes:
        line: where it begins [count, from 1].
        text: what it says, shortened.
        reason: why it is not used.
    """

    line: int
    text: str
    reason: str


@attrs.frozen
class RecipientsFile:
    """What a file holds.

    Attributes:
        recipients: each once, in the order of the file.
        bad: rows that are no recipients.
        repeated: rows whose recipient stands on an earlier line.
    """

    recipients: Sequence[Recipient]
    bad: Sequence[BadRow]
    repeated: Sequence[BadRow]


def read_recipients(path: Path) -> RecipientsFile:
    """Read a CSV file with the columns `email` and, if there is one, `name`.

    UTF-8 with or without a mark at its beginning, or UTF-16 with one; commas, semicolons or
    tabs between columns, whichever the first line has most of.

    Raises:
        Refusal: it cannot be read, has no such column, or not one recipient.
    """
    rows = _rows(_LINE_END.split(_text(path)))
    first = next(rows, None)
    if first is None:
        raise Refusal(f"{path} is empty; its first line must name the columns email,name")
    header = [_plain(field).casefold() for field in first.fields]
    if "email" not in header:
        found = ", ".join(header) if first.fault is None else first.fault
        raise Refusal(
            f"{path} has no column email; its first line must name the columns"
            f" email,name, and it says: {found[:_SHOWN]}"
        )
    taken: dict[str, tuple[Recipient, int]] = {}
    bad: list[BadRow] = []
    repeated: list[BadRow] = []
    for row in rows:
        try:
            recipient = _recipient(row, header)
        except ValueError as error:
            bad.append(BadRow(row.line, row.shown, str(error)))
            continue
        key = recipient.email.casefold()
        if key in taken:
            repeated.append(BadRow(row.line, row.shown, f"as on line {taken[key][1]}"))
        else:
            taken[key] = (recipient, row.line)
    if not taken:
        raise Refusal(_nobody(path, bad))
    return RecipientsFile([recipient for recipient, _ in taken.values()], bad, repeated)


def _nobody(path: Path, bad: Sequence[BadRow]) -> str:
    if not bad:
        return f"{path} names columns and not one recipient"
    worst = f"line {bad[0].line}: {bad[0].reason}"
    return f"{path} has not one recipient that can be used; {worst} (of {len(bad)} such)"


@attrs.frozen
class _Row:
    line: int
    text: str
    fields: Sequence[str]
    fault: str | None = None

    @property
    def shown(self) -> str:
        text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in self.text)
        return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Refusal(f"cannot read {path}: {error.strerror or error}") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    # What is not UTF-8 becomes a surrogate, and the row that holds it a bad one.
    return content.decode("utf-8-sig", "surrogateescape")


def _rows(lines: Sequence[str]) -> Iterator[_Row]:
    """Split lines into rows, each by itself, so that a stray quote spoils one row only."""
    delimiter = _delimiter(next((line for line in lines if line.strip()), ""))
    at = 0
    while at < len(lines):
        taken, row = _row_at(lines, at, delimiter)
        at += taken
        if any(field.strip() for field in row.fields) or row.fault:
            yield row


def _row_at(lines: Sequence[str], at: int, delimiter: str) -> tuple[int, _Row]:
    """Return how many lines the row takes, and the row."""
    for taken in range(1, min(_MAX_LINES, len(lines) - at) + 1):
        text = "\n".join(lines[at : at + taken])
        if text.count('"') % 2:
            continue  # a quote is open: the row goes on
        try:
            fields = next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), [])
        except csv.Error as error:
            return 1, _Row(at + 1, lines[at], [], f"cannot be read: {error}")
        return taken, _Row(at + 1, text, fields)
    return 1, _Row(at + 1, lines[at], [], "a quote is opened and not closed")


def _delimiter(header: str) -> str:
    outside = re.sub(r'"[^"]*"', "", header)
    return max(_DELIMITERS, key=outside.count)


def _recipient(row: _Row, header: Sequence[str]) -> Recipient:
    if row.fault is not None:
        raise ValueError(row.fault)
    if any("\udc80" <= character <= "\udcff" for character in row.text):
        raise ValueError("not UTF-8")
    surplus = [field for field in row.fields[len(header) :] if field.strip()]
    if surplus:
        raise ValueError(
            f"{len(row.fields)} fields where the first line names {len(header)}"
            " (put a name that holds the separator in quotes)"
        )
    cells = dict(zip(reversed(header), reversed(_padded(row.fields, len(header))), strict=True))
    address = _plain(cells["email"])
    if not address:
        raise ValueError("no address")
    email = mail_address(address)
    if "." not in email.rpartition("@")[2]:
        raise ValueError("the domain is not complete")
    return Recipient(email, _name(cells.get("name", "")))


def _padded(fields: Sequence[str], width: int) -> Sequence[str]:
    return [*fields, *[""] * (width - len(fields))][:width]


def _plain(text: str) -> str:
    return text.strip().strip("\ufeff\u200b").strip()


def _name(text: str) -> str:
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise ValueError("a control character in the name")
    return name


_FIRST: Final = (
    "Ana João Inês Rui Conceição Tomás Mariana Gonçalo Zoë Jürgen Anaïs François Łukasz Żaneta"
    " Bjørn Åsa Søren Siân Oisín Chloé Mehmet Şule Dvořák Željka Nuño Begoña Mary John Aisha"
    " Wei Priya Kofi Yuki Olga Dmitri Fatima Liam Emma Noah Sofia"
)
_LAST: Final = (
    "Silva Santos Gonçalves Conceição Sousa Müller Schröder Weiß García Muñoz Lefèvre Dubois"
    " Kowalski Wiśniewska Nilsson Ångström Sørensen O'Brien Evans Smith Taylor Öztürk Novák"
    " Horvat Rossi D'Angelo Okafor Mensah Tanaka Chen Patel Khan Ivanova Petrov Haddad Fernandes"
)
_PARTICLES: Final = ("", "", "", "", "da ", "de la ", "van ")
# Names that lead nowhere, whoever should run this against a real server (RFC 2606).
_DOMAINS: Final = (
    "mail.example", "post.example", "inbox.example", "example.com", "example.net",
    "example.org", "uni.example", "bücher.example", "câmara.example",
)  # fmt: skip


def make_recipients(count: int, seed: int) -> list[Recipient]:
    """Make up `count` recipients, no two with one address; the same for the same seed."""
    draw = random.Random(seed)  # noqa: S311 - a reproducible list, no secret
    firsts, lasts = _FIRST.split(), _LAST.split()
    taken: set[str] = set()
    recipients = []
    for _ in range(count):
        first, last = draw.choice(firsts), draw.choice(lasts)
        name = f"{first} {draw.choice(_PARTICLES)}{last}"
        local, domain = f"{_ascii(first)}.{_ascii(last)}", draw.choice(_DOMAINS)
        email = mail_address(f"{local}@{domain}")
        number = 1
        while email in taken:
            number = draw.randrange(2, 100 * count)
            email = mail_address(f"{local}{number}@{domain}")
        taken.add(email)
        recipients.append(Recipient(email, name))
    return recipients


def _ascii(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name.translate(_LETTERS)).encode("ascii", "ignore")
    return re.sub(r"[^a-z]", "", plain.decode().casefold())


# What does not decompose into a plain letter and a mark.
_LETTERS: Final = str.maketrans({"ł": "l", "Ł": "L", "ø": "o", "ß": "ss", "Ø": "O"})
