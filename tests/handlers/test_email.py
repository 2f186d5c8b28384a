"""The e-mail handler against a real SMTP server."""

from __future__ import annotations

import asyncio
import email.policy
import math
import socket
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from email.headerregistry import Address
from email.message import EmailMessage
from email.parser import BytesParser

import attrs
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from hypothesis import given
from hypothesis import strategies as st

from batchq.core.job import Job
from batchq.core.result import Result
from batchq.errors import OptionError
from batchq.handlers.email import (
    Email,
    SmtpTransport,
    compose,
    deliver,
    mail_address,
    sender,
)

HANG_UP = "hang up"


def hang_up(server: SMTP) -> None:
    assert isinstance(server.transport, asyncio.Transport)
    server.transport.abort()


@attrs.define(eq=False)
class Mailbox:
    """Keeps what arrives; answers recipients and messages as it is told to."""

    at_sender: dict[str, str] = attrs.field(factory=dict)
    at_recipient: dict[str, list[str]] = attrs.field(factory=lambda: defaultdict(list))
    at_message: dict[str, list[str]] = attrs.field(factory=lambda: defaultdict(list))
    messages: list[EmailMessage] = attrs.field(factory=list)
    recipients: list[str] = attrs.field(factory=list)
    sessions: set[Session] = attrs.field(factory=set)
    before_message: Callable[[], object] = bool
    resets: int = 0

    async def handle_MAIL(
        self,
        server: SMTP,
        session: Session,
        envelope: Envelope,
        address: str,
        options: list[str],
    ) -> str:
        self.sessions.add(session)
        envelope.mail_from = address
        envelope.smtp_utf8 = "SMTPUTF8" in options
        return self.at_sender.get(address, "250 OK")

    async def handle_RCPT(
        self,
        server: SMTP,
        session: Session,
        envelope: Envelope,
        address: str,
        options: list[str],
    ) -> str:
        answers = self.at_recipient[address]
        answer = answers.pop(0) if answers else "250 OK"
        if answer == HANG_UP:
            hang_up(server)
        elif answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_RSET(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.resets += 1
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.before_message()
        [address] = envelope.rcpt_tos
        answers = self.at_message[address]
        if answers and answers[0] != HANG_UP:
            return answers.pop(0)
        content = envelope.original_content or b""
        parser = BytesParser(policy=email.policy.SMTPUTF8)
        self.messages.append(parser.parsebytes(content))
        self.recipients.append(address)
        if answers:
            answers.pop(0)
            hang_up(server)
        return "250 taken"


class OnAnyPort(Controller):
    def __init__(self, handler: object, **options: object) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        port = self.listener.getsockname()[1]
        super().__init__(handler, hostname="127.0.0.1", port=port, **options)  # type: ignore[arg-type]

    def _create_server(self) -> Awaitable[object]:  # type: ignore[override]
        return self.loop.create_server(self._factory_invoker, sock=self.listener)


@pytest.fixture
def serve() -> Iterator[Callable[..., SmtpTransport]]:
    running = []

    def start(mailbox: Mailbox, **options: object) -> SmtpTransport:
        controller = OnAnyPort(mailbox, **options)
        controller.start()
        running.append(controller)
        return SmtpTransport(
            "127.0.0.1",
            controller.port,
            sender="The News <news@example.org>",
            local_hostname="test",
            timeout=5,
        )

    yield start
    for controller in running:
        controller.stop()


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def smtp(serve: Callable[..., SmtpTransport], mailbox: Mailbox) -> SmtpTransport:
    return serve(mailbox)


def letters(*names: str) -> list[Email]:
    return [Email(f"{name}@example.com", f"Hello {name}", f"Dear {name}") for name in names]


def jobs_of(emails: list[Email], settled: dict[int, Result[object]]) -> list[Job[Email]]:
    def job(number: int, payload: Email) -> Job[Email]:
        return Job(
            id=number,
            attempt=1,
            payload=payload,
            queue="newsletter",
            handler="newsletter",
            priority=2,
            used=1,
            max_attempts=4,
            enqueued_at=1_750_000_000.25,
            settle=lambda _, result: settled.__setitem__(number, result),
        )

    return [job(number, payload) for number, payload in enumerate(emails, start=1)]


def test_a_batch_goes_over_one_connection(smtp: SmtpTransport, mailbox: Mailbox) -> None:
    results = deliver(letters("ana", "rui", "eva"), smtp)
    assert results == [Result.ok()] * 3
    assert mailbox.recipients == ["ana@example.com", "rui@example.com", "eva@example.com"]
    assert len(mailbox.sessions) == 1


def test_each_recipient_has_an_outcome_of_its_own(smtp: SmtpTransport, mailbox: Mailbox) -> None:
    mailbox.at_recipient["rui@example.com"] = ["451 4.7.1 greylisted"]
    mailbox.at_recipient["eva@example.com"] = ["550 5.1.1 no such user"]
    mailbox.at_message["ivo@example.com"] = ["554 5.7.1 spam"]
    mailbox.at_message["ada@example.com"] = ["452 4.3.1 mailbox full"]
    results = deliver(letters("ana", "rui", "eva", "ivo", "ada", "joe"), smtp)
    assert results == [
        Result.ok(),
        Result.retry("451 4.7.1 greylisted (recipient)"),
        Result.discard("550 5.1.1 no such user (recipient)"),
        Result.discard("554 5.7.1 spam (message)"),
        Result.retry("452 4.3.1 mailbox full (message)"),
        Result.ok(),
    ]
    assert mailbox.recipients == ["ana@example.com", "joe@example.com"]
    assert len(mailbox.sessions) == 1
    assert mailbox.resets >= 4


def test_what_the_server_has_accepted_is_settled_at_once(
    smtp: SmtpTransport, mailbox: Mailbox
) -> None:
    settled: dict[int, Result[object]] = {}
    seen = []
    mailbox.before_message = lambda: seen.append(sorted(settled))
    results = deliver(jobs_of(letters("ana", "rui", "eva"), settled), smtp)
    assert seen == [[], [1], [1, 2]]
    assert list(settled.values()) == results == [Result.ok()] * 3


def test_a_server_that_hangs_up_costs_one_message_an_attempt(
    smtp: SmtpTransport, mailbox: Mailbox
) -> None:
    mailbox.at_recipient["rui@example.com"] = [HANG_UP]
    mailbox.at_recipient["ivo@example.com"] = ["421 4.7.0 enough for one connection"]
    first, second, third, fourth, fifth = deliver(letters("ana", "rui", "eva", "ivo", "ada"), smtp)
    assert first == third == fifth == Result.ok()
    assert (second.success, second.retryable) == (False, True)
    assert isinstance(second.error, OSError)
    assert fourth == Result.retry("421 4.7.0 enough for one connection (recipient)")
    assert mailbox.recipients == ["ana@example.com", "eva@example.com", "ada@example.com"]
    assert len(mailbox.sessions) == 3


def test_a_message_accepted_by_a_server_that_dies_before_saying_so_comes_again(
    smtp: SmtpTransport, mailbox: Mailbox
) -> None:
    mailbox.at_message["ana@example.com"] = [HANG_UP]
    settled: dict[int, Result[object]] = {}
    [job] = jobs_of(letters("ana"), settled)
    [result] = deliver([job], smtp)
    assert result.retryable is True
    assert deliver([job], smtp) == [Result.ok()]
    first, again = mailbox.messages
    assert first["Message-ID"] == again["Message-ID"]  # so that mailboxes can drop the repeat


def test_no_connection_is_the_whole_calls_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConnectionRefusedError) as caught:
        deliver(letters("ana"), SmtpTransport("127.0.0.1", port))
    assert caught.value.__notes__ == [f"while connecting to the SMTP server 127.0.0.1:{port}"]


def test_a_server_lost_for_good_leaves_what_was_sent_settled(
    serve: Callable[..., SmtpTransport], mailbox: Mailbox
) -> None:
    settled: dict[int, Result[object]] = {}
    mailbox.at_recipient["rui@example.com"] = [HANG_UP]
    smtp = serve(mailbox)
    first, second, third = jobs_of(letters("ana", "rui", "eva"), settled)
    gone = SmtpTransport("127.0.0.1", 1)

    def lose(_: Job[Email], result: Result[object]) -> None:
        settled[2] = result
        object.__setattr__(smtp, "port", gone.port)  # where nobody listens

    second._settle = lose
    with pytest.raises(ConnectionRefusedError):
        deliver([first, second, third], smtp)
    assert settled[1] == Result.ok()
    assert settled[2].retryable is True
    assert 3 not in settled


def test_a_refused_sender_is_a_failure_that_waits_for_better_settings(
    smtp: SmtpTransport, mailbox: Mailbox
) -> None:
    mailbox.at_sender["news@example.org"] = "550 5.7.1 who are you"
    mailbox.at_sender["big@example.org"] = "552 5.3.4 too large"
    mailbox.at_sender["slow@example.org"] = "451 4.3.0 later"
    one = letters("ana")[0]
    emails = [
        one,
        Email(one.to, "s", "b", sender="big@example.org"),
        Email(one.to, "s", "b", sender="slow@example.org"),
        Email(one.to, "s", "b", sender="Rui <rui@example.org>"),
    ]
    assert deliver(emails, smtp) == [
        Result.fail("550 5.7.1 who are you (sender)"),
        Result.discard("552 5.3.4 too large (sender)"),
        Result.retry("451 4.3.0 later (sender)"),
        Result.ok(),
    ]


def test_names_and_domains_in_any_script_arrive(smtp: SmtpTransport, mailbox: Mailbox) -> None:
    emails = [
        Email("ana@bücher.example", "Números", "Olá, ação", name="João “Jô” da Silva, Lda."),
        Email("josé@example.com", "Olá", "Olá", name="José"),
    ]
    assert deliver(emails, smtp) == [Result.ok()] * 2
    first, second = mailbox.messages
    assert mailbox.recipients == ["ana@xn--bcher-kva.example", "josé@example.com"]
    assert first["To"].addresses[0].display_name == "João “Jô” da Silva, Lda."
    assert first["Subject"] == "Números"
    assert first.get_content().strip() == "Olá, ação"
    assert second["To"].encode(errors="surrogateescape").decode() == "José <josé@example.com>"


def test_a_server_without_utf8_addresses_refuses_only_those(
    serve: Callable[..., SmtpTransport], mailbox: Mailbox
) -> None:
    smtp = serve(mailbox, enable_SMTPUTF8=False)
    first, second = deliver([Email("josé@example.com", "s", "b"), *letters("ana")], smtp)
    assert first.retryable is False
    assert second == Result.ok()


def test_what_cannot_be_sent_is_discarded_and_the_rest_goes(
    smtp: SmtpTransport, mailbox: Mailbox
) -> None:
    bad = [
        Email("ana@example.com", "Hello\r\nBcc: everyone@example.com", "b"),
        Email("ana@example.com", "Hello", "b", name="Ana\nBcc: everyone@example.com"),
        Email("ana@example.com\r\nRCPT TO:<rui@example.com>", "s", "b"),
        Email("ana@example.com", "s", "b", reply_to="x@y.example\r\nBcc: z@y.example"),
        Email("ana@example.com", "s", "b", unsubscribe="https://x.example/>\r\nBcc: z@y.example"),
        Email("ana@example.com", "s", "b", unsubscribe="javascript:alert(1)"),
        Email("nobody", "s", "b"),
    ]
    results = deliver([*bad, *letters("rui")], smtp)
    assert [result.retryable for result in results[:-1]] == [False] * len(bad)
    assert all(str(result.error).startswith("cannot be sent: ") for result in results[:-1])
    assert mailbox.recipients == ["rui@example.com"]


@given(name=st.text(max_size=40), subject=st.text(max_size=120), body=st.text(max_size=80))
def test_no_text_makes_a_header_of_its_own(name: str, subject: str, body: str) -> None:
    payload = Email("ana@example.com", subject, body, name=name)
    try:
        content = compose(payload, sender="n@example.org", message_id="<1@x>").as_bytes()
    except ValueError:
        return
    head, _, _ = content.partition(b"\r\n\r\n")
    names = [line.split(b":")[0] for line in head.split(b"\r\n") if line[:1] not in (b" ", b"\t")]
    assert sorted(set(names)) == sorted(names)
    assert {b"From", b"To", b"Subject", b"Date", b"Message-ID"} <= set(names)
    assert set(names) <= {
        b"From", b"To", b"Subject", b"Date", b"Message-ID",
        b"MIME-Version", b"Content-Type", b"Content-Transfer-Encoding",
    }  # fmt: skip
    parsed = BytesParser(policy=email.policy.SMTP).parsebytes(content)
    assert [address.addr_spec for address in parsed["To"].addresses] == ["ana@example.com"]


@given(name=st.text(max_size=40), subject=st.text(max_size=120))
def test_headers_arrive_as_the_library_alone_would_send_them(name: str, subject: str) -> None:
    try:
        ours = compose(
            Email("ana@example.com", subject, "b", name=name),
            sender="News <n@example.org>",
            message_id="<1@x>",
        )
    except ValueError:
        return
    theirs = EmailMessage()
    theirs["To"] = Address(name, "ana", "example.com")
    theirs["Subject"] = subject
    theirs["From"] = Address("News", "n", "example.org")
    parsed = BytesParser(policy=email.policy.SMTP).parsebytes(ours.as_bytes())
    expected = BytesParser(policy=email.policy.SMTP).parsebytes(theirs.as_bytes())
    for header in ("To", "Subject", "From"):
        assert str(parsed[header]).split() == str(expected[header]).split()


def test_bulk_mail_offers_a_way_out_that_is_not_folded_or_encoded() -> None:
    link = "https://news.example.org/unsubscribe?token=" + "a1b2" * 30
    payload = Email("ana@example.com", "s", "b", html="<p>b</p>", unsubscribe=link)
    content = compose(payload, sender="n@example.org", message_id="<1@x>").as_bytes()
    assert f"\r\nList-Unsubscribe: <{link}>\r\n".encode() in content
    assert b"\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in content
    assert b"multipart/alternative" in content


def test_a_job_keeps_its_message_id_over_its_attempts(
    smtp: SmtpTransport, mailbox: Mailbox
) -> None:
    settled: dict[int, Result[object]] = {}
    [job] = jobs_of(letters("ana"), settled)
    send = sender(smtp)
    send([job])
    job.attempt = 2
    send([job])
    ids = {str(message["Message-ID"]) for message in mailbox.messages}
    assert len(mailbox.messages) == 2
    assert len(ids) == 1
    assert ids.pop().startswith("<1.")


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_it_logs_in_where_it_is_told_to(
    serve: Callable[..., SmtpTransport], mailbox: Mailbox
) -> None:
    def authenticate(*arguments: object) -> AuthResult:
        login = arguments[-1]
        assert isinstance(login, LoginPassword)
        good = (login.login, login.password) == (b"ana", b"secret")
        return AuthResult(success=good, handled=False)

    smtp = serve(mailbox, authenticator=authenticate, auth_required=True, auth_require_tls=False)
    known = attrs.evolve(smtp, username="ana", password="secret")  # noqa: S106
    assert deliver(letters("rui"), known) == [Result.ok()]
    assert "secret" not in repr(known)
    with pytest.raises(OSError, match="535"):
        deliver(letters("rui"), attrs.evolve(known, password="wrong"))  # noqa: S106


def test_settings_that_cannot_work_are_refused_when_made() -> None:
    with pytest.raises(OptionError, match=r"username needs starttls"):
        SmtpTransport("smtp.example.org", username="ana")
    for never in (0, math.inf):
        with pytest.raises(OptionError, match=r"timeout must be a number of seconds above 0"):
            SmtpTransport(timeout=never)
    with pytest.raises(OptionError, match=r"sender must be an address"):
        SmtpTransport(sender="nobody")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("ana@example.com", "ana@example.com"),
        ("Ana.Silva+News@Example.COM", "Ana.Silva+News@example.com"),
        ("ana@BÜCHER.example", "ana@xn--bcher-kva.example"),
        ("jose\u0301@example.com", "jos\u00e9@example.com"),
        ("用户@例え.example", "用户@xn--r8jz45g.example"),
        ("root@localhost", "root@localhost"),
    ],
)
def test_an_address_is_written_as_the_envelope_wants_it(text: str, written: str) -> None:
    assert mail_address(text) == written


@pytest.mark.parametrize(
    "text",
    [
        "", "ana", "@example.com", "ana@", "ana@@example.com", "a b@example.com",
        "ana@exa mple.com", "ana@example..com", "ana@-example.com", "ana@example-.com",
        ".ana@example.com", "ana.@example.com", "a..b@example.com", "ana@[127.0.0.1]",
        "ana@127.0.0.1", '"ana"@example.com', "<ana@example.com>", "ana@example.com\n",
        "ana\x00@example.com", "ana\u200b@example.com", "a" * 65 + "@example.com",
        "ana@" + "a" * 64 + ".com", "ana@" + "a." * 130 + "com", "ana@exa_mple.com",
        "ana,rui@example.com", "ana@example.com>", "ana@xn--\u00fc.example",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        mail_address(text)
