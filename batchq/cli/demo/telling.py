"""What the demo says at its end, and of rows it does not use."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from batchq.cli.demo.recipients import BadRow, RecipientsFile
from batchq.cli.demo.report import Report

__all__ = ["account_of_file", "account_of_report"]

_SHOWN: Final = 20


def account_of_file(path: Path, content: RecipientsFile) -> Iterator[str]:
    """Tell what a file holds, and which rows are not used."""
    yield f"{path}: {_count(len(content.recipients), 'recipient')}"
    yield from _rows("not used", content.bad)
    yield from _rows("listed before, sent once", content.repeated)


def _rows(what: str, rows: Sequence[BadRow]) -> Iterator[str]:
    if rows:
        yield f"  {_count(len(rows), 'row')} {what}:"
    for row in rows[:_SHOWN]:
        yield f"    line {row.line}: {row.reason}: {row.text}"
    if len(rows) > _SHOWN:
        yield f"    and {len(rows) - _SHOWN:,} more"


def account_of_report(report: Report, url: str) -> Iterator[str]:
    """Tell how the campaign ended, and what to look at next."""
    times = report.times
    yield ""
    yield _line("stored", report.stored, f"jobs in {times.storing:.2f} s, a commit per thousand")
    yield _line("sent", report.sent, "completed, and the server has the mail")
    yield _line("failed", report.refused, "refused by the server for good (550): not tried again")
    yield _line("tried again", report.retries, _why_again(report))
    yield from _kill(report)
    yield _line(
        "batches",
        report.batches,
        f"calls of the handler, over {report.connections:,} SMTP connections",
    )
    yield _line(
        "commits",
        report.commits,
        f"in the store: {report.commits_per_job:.3f} per job, all workers'",
    )
    yield _line("speed", round(report.rate), f"mails/s over {times.sending:.1f} s")
    if report.bad_rows or report.repeated_rows:
        yield _line("rows", report.bad_rows, f"bad, and {report.repeated_rows:,} repeated")
    yield ""
    yield from _sum(report)
    yield ""
    yield f"The jobs are in {report.database}"
    yield "Try next:"
    quoted = shlex.quote(url)
    yield f"  batchq stats --url {quoted}"
    yield f"  batchq jobs --url {quoted} --status failed"


def _line(name: str, number: int, text: str) -> str:
    return f"  {name:<14}{number:>8,}  {text}"


def _why_again(report: Report) -> str:
    put_off = f"attempts: {report.deferrals:,} put off by the server (451)"
    rest = report.retries - report.deferrals
    return f"{put_off}, {rest:,} after the kill" if report.killed is not None else put_off


def _kill(report: Report) -> Iterator[str]:
    if report.killed is None:
        yield _line("arrived twice", report.twice, "no worker was killed")
        return
    pid, accepted = report.killed.pid, len(report.killed.accepted)
    yield _line(
        "arrived twice", report.twice, f"because worker {pid} was killed (SIGKILL): the server"
    )
    yield f"{'':26}had {accepted:,} mails of its batch, and nobody had written that down yet."
    if report.twice > report.twice_by_kill:
        rest = report.twice - report.twice_by_kill
        yield f"{'':26}({rest:,} of them for another reason: a lease that ran out.)"
    yield f"{'':26}At least once means this: never lost, and after a crash perhaps twice."
    if report.twice and report.same_id:
        yield f"{'':26}Both copies carry one Message-ID, so that a mailbox can drop one."


def _sum(report: Report) -> Iterator[str]:
    sum_ = f"{report.sent:,} sent + {report.refused:,} refused"
    if report.adds_up:
        yield f"It adds up: {_count(report.recipients, 'recipient')} = {sum_}, nobody lost."
        return
    wanted = _count(report.recipients, "recipient")
    yield f"It does NOT add up: {wanted}, {_count(report.stored, 'job')}, {sum_}."
    for lost in report.lost[:_SHOWN]:
        job = "" if lost.job is None else f" (job {lost.job})"
        yield f"  {lost.email}{job}: {lost.reason}"
    if len(report.lost) > _SHOWN:
        yield f"  and {len(report.lost) - _SHOWN:,} more"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
