"""Batch what the threads of a web server ask for: a Portal, as in Flask or Django.

Run:    python docs/examples/sync_view.py
Shows:  eight requests in eight threads get an answer each, in fewer calls to the
        service behind them. Make the portal when a worker starts, after any fork.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from batchq import Batch, BatchedQueue, Portal


class Prices(BatchedQueue[str, int]):
    """Asks for many prices in one call."""

    name = "prices"
    batch_size = 8
    flush_interval = 0.05

    async def process_batch(self, batch: Batch[str]) -> list[int]:
        """Stand in for a service that takes many names at once."""
        return [len(name) for name in batch]


class App:
    """A view: one function, called from any thread."""

    def __init__(self, portal: Portal[str, int]) -> None:
        self.portal = portal

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """Answer `GET /<name>` with the price of it."""
        price = self.portal.process_sync(environ["PATH_INFO"].strip("/"))
        start("200 OK", [("Content-Type", "text/plain")])
        return [f"{price}".encode()]


class Quiet(WSGIRequestHandler):
    """Logs nothing."""

    def log_message(self, *_: Any) -> None:  # noqa: ANN401
        """Say nothing."""


class Server(ThreadingMixIn, WSGIServer):
    """A thread per request."""


def get(url: str) -> str:
    """Be a browser."""
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - our own server
        return str(answer.read().decode())


if __name__ == "__main__":
    queue = Prices()
    with Portal(queue) as portal:
        with make_server("127.0.0.1", 0, App(portal), Server, Quiet) as server:
            Thread(target=server.serve_forever, daemon=True).start()
            urls = [f"http://127.0.0.1:{server.server_port}/{'x' * n}" for n in range(1, 9)]
            with ThreadPoolExecutor(8) as browsers:
                print("answers:", *browsers.map(get, urls))
            server.shutdown()
        stats = portal.call(queue.stats)
        print("fewer calls than requests:", stats.batches < stats.succeeded)
