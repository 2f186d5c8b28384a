"""E-mail: one message per job, one SMTP connection per batch.

    smtp = SmtpTransport("smtp.example.org", 587, sender="News <news@example.org>", starttls=True)
    newsletter = manager.batch_handler(batch_size=100, name="newsletter")(sender(smtp))
    await newsletter.enqueue(Email("ana@example.com", "Hello", "Dear Ana, ...", name="Ana"))

Rule 1: each recipient has an outcome of its own. What the server puts off (4xx) comes again,
what it refuses for good (5xx) does not, and neither touches the rest of the batch.
Rule 2: what the server has accepted is settled before the next message begins. Whatever
happens to the connection later, it is not sent a second time for that.
Rule 3: nothing from a payload reaches a header or the envelope unchecked.
"""

from __future__ import annotations

import email.utils
import re
import smtplib
import ssl
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import EmailPolicy
from functools import lru_cache
from typing import Any, Final, NamedTuple

import attrs
import idna
import msgspec

from batchq.core.checks import wait
from batchq.core.job import Job
from batchq.core.result import Result
from batchq.errors import OptionError

__all__ = ["Email", "SmtpTransport", "compose", "deliver", "mail_address", "sender"]

_LOCAL: Final = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~.\-\u0080-\U0010ffff]+", re.IGNORECASE)
_LABEL: Final = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
_DOMAIN: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*", re.IGNORECASE)
_LINK: Final = re.compile(r"(https://|mailto:)[!-;=?-~]+", re.ASCII)
_NO_LINE: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_MAX_LOCAL: Final = 64
_MAX_ADDRESS: Final = 254
_HANGS_UP: Final = 421
_PERMANENT: Final = 500
_TOO_LARGE: Final = 552
# Beyond this a header is folded (RFC 5322), but for those whose value is one long word.
_MAX_LINE: Final = 78
_ONE_WORD: Final = frozenset({"List-Unsubscribe", "Message-ID"})


class Email(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message to one recipient.

    Attributes:
        to: the recipient's address; names in any script may stand in its domain.
        subject: one line.
        body: the text.
        name: the recipient's name, as it is to stand beside the address.
        html: the same once more as HTML; None sends text alone.
        sender: `news@example.org` or `News <news@example.org>`; None: the transport's.
        reply_to: where answers go; None: to the sender.
        unsubscribe: an https: or mailto: link for the button that mail programs show.
    """

    to: str
    subject: str
    body: str
    name: str = ""
    html: str | None = None
    sender: str | None = None
    reply_to: str | None = None
    unsubscribe: str | None = None


@attrs.frozen
class SmtpTransport:
    """The way to one SMTP server.

    Attributes:
        host: the server's name or address.
        port: 25 between servers, 587 for submission with `starttls`.
        sender: who sends what names no sender itself.
        username: None logs in as nobody.
        password: never shown.
        starttls: encrypt before anything is said.
        context: how to judge the server's certificate; None: as the system does.
        local_hostname: how to greet; None: the machine's full name, which may cost a
            look-up.
        timeout: longest wait for one reply [s].

    Raises:
        OptionError: a password would travel in clear text, the sender is no address, or
            the timeout is no time that one can wait.
    """

    host: str = "localhost"
    port: int = 25
    sender: str = attrs.field(default="nobody@localhost", kw_only=True)
    username: str | None = attrs.field(default=None, kw_only=True)
    password: str = attrs.field(default="", kw_only=True, repr=False)
    starttls: bool = attrs.field(default=False, kw_only=True)
    context: ssl.SSLContext | None = attrs.field(default=None, kw_only=True, repr=False)
    local_hostname: str | None = attrs.field(default=None, kw_only=True)
    timeout: float = attrs.field(default=30.0, kw_only=True, validator=wait(above=True))

    def __attrs_post_init__(self) -> None:
        if self.username is not None and not self.starttls and self.host not in _LOOPBACK:
            raise OptionError(
                f"username needs starttls=True, or the password for {self.host} travels in clear"
            )
        try:
            _mailbox(self.sender)
        except ValueError as error:
            raise OptionError(f"sender must be an address, got {self.sender!r}: {error}") from None

    @contextmanager
    def connect(self) -> Iterator[smtplib.SMTP]:
        """Open a connection that has greeted, encrypted and logged in.

        Raises:
            OSError: the server cannot be reached, or refuses (smtplib's errors are of it).
        """
        try:
            smtp = smtplib.SMTP(
                self.host, self.port, local_hostname=self.local_hostname, timeout=self.timeout
            )
        except OSError as error:
            error.add_note(f"while connecting to the SMTP server {self.host}:{self.port}")
            raise
        try:
            if self.starttls:
                smtp.starttls(context=self.context or ssl.create_default_context())
            smtp.ehlo_or_helo_if_needed()
            if self.username is not None:
                smtp.login(self.username, self.password)
            yield smtp
            # Whatever the server says to this, the messages are with it.
            with suppress(OSError):
                smtp.quit()
        finally:
            smtp.close()


def sender(transport: SmtpTransport) -> Callable[[list[Job[Email]]], list[Result[object]]]:
    """Return the function to register: it delivers batches through `transport`."""

    def send_emails(jobs: list[Job[Email]]) -> list[Result[object]]:
        return deliver(jobs, transport)

    return send_emails


def deliver(
    items: Sequence[Job[Email]] | Sequence[Email], transport: SmtpTransport
) -> list[Result[object]]:
    """Send a batch over one connection, which is made anew if the server hangs up.

    It blocks; batchq runs it in a thread. Jobs are settled one by one, as the server
    accepts or refuses them.

    Returns:
        One result per item, in order: retry where the server said 4xx or hung up, discard
        where it said 5xx or the message cannot be sent at all. A refused *sender* (5xx) is
        a plain failure: settings can be mended while the retry policy waits.

    Raises:
        OSError: no connection. What was not sent by then has failed for now; what was sent
            stays settled.
    """
    results: list[Result[object]] = []
    while len(results) < len(items):
        with transport.connect() as smtp:
            results += _send_over(smtp, items[len(results) :], transport)
    return results


def _send_over(
    smtp: smtplib.SMTP, items: Sequence[Job[Email] | Email], transport: SmtpTransport
) -> list[Result[object]]:
    """Send until all is sent or the server hangs up; one result per item that was tried."""
    results: list[Result[object]] = []
    for item in items:
        result = _send(smtp, item, transport)
        if isinstance(item, Job):
            item.settle(result)
        results.append(result)
        if smtp.sock is None:
            break
    return results


def _send(smtp: smtplib.SMTP, item: Job[Email] | Email, transport: SmtpTransport) -> Result[object]:
    try:
        letter = _pack(item, transport)
    except ValueError as error:
        return Result.discard(f"cannot be sent: {error}")
    if letter.options and not smtp.has_extn("SMTPUTF8"):
        return Result.discard(f"{letter.target}: the server takes no addresses beyond ASCII")
    try:
        smtp.sendmail(letter.source, [letter.target], letter.content, letter.options)
    except smtplib.SMTPRecipientsRefused as refusal:
        return _refused(smtp, "recipient", refusal.recipients[letter.target])
    except smtplib.SMTPResponseException as refusal:
        what = "sender" if isinstance(refusal, smtplib.SMTPSenderRefused) else "message"
        return _refused(smtp, what, (refusal.smtp_code, refusal.smtp_error))
    except OSError as error:
        # Before or after it was accepted? Nobody knows: at least once means again.
        smtp.close()
        return Result.retry(error)
    return Result.ok()


class _Letter(NamedTuple):
    source: str
    target: str
    content: bytes
    options: list[str]


def _pack(item: Job[Email] | Email, transport: SmtpTransport) -> _Letter:
    payload = item.payload if isinstance(item, Job) else item
    sent_by = payload.sender or transport.sender
    source = _mailbox(sent_by).addr_spec
    target = mail_address(payload.to)
    message = compose(payload, sender=sent_by, message_id=_message_id(item, source))
    ascii_only = target.isascii() and source.isascii()
    content = message.as_bytes(policy=_POLICY if ascii_only else _POLICY_UTF8)
    return _Letter(source, target, content, [] if ascii_only else ["SMTPUTF8"])


def _refused(smtp: smtplib.SMTP, what: str, answer: tuple[int, bytes | str]) -> Result[object]:
    code, reply = answer
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
    error = f"{code} {' '.join(text.split())} ({what})"
    if smtp.sock is not None:
        # Some servers remember the sender of a refused message until they are told to forget.
        try:
            smtp.rset()
        except OSError:
            smtp.close()
    if code < _PERMANENT:
        return Result.retry(error)
    if what == "sender" and code != _TOO_LARGE:
        return Result.fail(error)
    return Result.discard(error)


def compose(payload: Email, *, sender: str, message_id: str) -> EmailMessage:
    """Make the message as it is sent.

    Raises:
        ValueError: a field does not fit where it has to go; names the field.
    """
    message = EmailMessage(policy=_POLICY)
    message["From"] = _mailbox(sender)
    message["To"] = _address(_line("name", payload.name), payload.to)
    message["Subject"] = _line("subject", payload.subject)
    message["Date"] = email.utils.format_datetime(datetime.now(UTC))
    message["Message-ID"] = message_id
    if payload.reply_to is not None:
        message["Reply-To"] = _mailbox(payload.reply_to)
    if payload.unsubscribe is not None:
        if not _LINK.fullmatch(payload.unsubscribe):
            raise ValueError(f"unsubscribe is no https: or mailto: link: {payload.unsubscribe!r}")
        message["List-Unsubscribe"] = f"<{payload.unsubscribe}>"
        if payload.unsubscribe.startswith("https:"):
            message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message.set_content(payload.body)
    if payload.html is not None:
        message.add_alternative(payload.html, subtype="html")
    return message


class _Policy(EmailPolicy):
    """Writes a header as it is where nothing in it is to be encoded or folded.

    The library takes every header apart and puts it together again, which would be more than
    half of what a mail costs. It would also make an encoded word of a link that is longer
    than a line, and no mail program reads that as a link.
    """

    # Any is how the library types a header's value.

    def header_store_parse(self, name: str, value: Any) -> tuple[str, Any]:  # noqa: ANN401
        """Keep a header that fits as plain text."""
        text = str(value)
        return (name, text) if _fits(name, text) else super().header_store_parse(name, value)

    def fold_binary(self, name: str, value: Any) -> bytes:  # noqa: ANN401
        """Write a header's line or lines."""
        if type(value) is str:  # stored as it is, above
            return f"{name}: {value}{self.linesep}".encode("ascii")
        return super().fold_binary(name, value)


def _fits(name: str, text: str) -> bool:
    """Tell whether a header's value needs neither encoding nor folding."""
    if name.startswith("Content-"):
        return False  # the library asks for its parts again and again
    plain = text.isascii() and text.isprintable() and text == text.strip() and "=?" not in text
    return plain and (name in _ONE_WORD or len(name) + 2 + len(text) <= _MAX_LINE)


# 7bit: not every server on the way takes eight, and quoted-printable can be read.
_POLICY: Final = _Policy(linesep="\r\n", cte_type="7bit")
_POLICY_UTF8: Final = _Policy(linesep="\r\n", cte_type="7bit", utf8=True)


def mail_address(text: str) -> str:
    """Check an address and write it as the envelope wants it: the domain in ASCII.

    The part before the @ may be in any script (RFC 6531) and keeps its case; quoted ones
    and address literals are refused.

    Raises:
        ValueError: it is none; says why.
    """
    local, at, domain = unicodedata.normalize("NFC", text).rpartition("@")
    if not at or not local or not domain:
        raise ValueError("an address is name@domain")
    if not _LOCAL.fullmatch(local) or not local.isprintable():
        raise ValueError("there is a character before the @ that cannot stand there")
    if local.startswith(".") or local.endswith(".") or ".." in local:
        raise ValueError("a dot before the @ stands alone")
    domain = _ascii_domain(domain)
    if len(local.encode()) > _MAX_LOCAL or len(local.encode()) + 1 + len(domain) > _MAX_ADDRESS:
        raise ValueError(f"longer than {_MAX_LOCAL} bytes before the @, or {_MAX_ADDRESS} in all")
    return f"{local}@{domain}"


def _ascii_domain(domain: str) -> str:
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode()
        except idna.IDNAError as error:
            raise ValueError(f"the domain cannot be: {error}") from None
    if not _DOMAIN.fullmatch(domain) or domain.rpartition(".")[2].isdecimal():
        raise ValueError("the domain cannot be")
    return domain.lower()


@lru_cache(maxsize=256)  # every message of a campaign has the same sender
def _mailbox(text: str) -> Address:
    name, address = email.utils.parseaddr(_line("sender", text))
    return _address(name, address)


def _address(name: str, address: str) -> Address:
    # In two parts: Address(addr_spec=...) takes no name beyond ASCII before the @.
    local, _, domain = mail_address(address).rpartition("@")
    return Address(name, local, domain)


def _line(field: str, text: str) -> str:
    if not text.isprintable() and any(unicodedata.category(char) in _NO_LINE for char in text):
        raise ValueError(f"{field} must be one line without control characters, got {text!r}")
    return text


def _message_id(item: Job[Email] | Email, source: str) -> str:
    """Return the same id on every attempt of a job, so that mailboxes can drop repeats."""
    domain = source.rpartition("@")[2]
    if not isinstance(item, Job):
        return email.utils.make_msgid(domain=domain)
    # Job 1 exists in every database; the time of storing tells them apart.
    return f"<{item.id}.{int(item.enqueued_at * 1e6):x}.{item.handler}@{domain}>"
