"""All that a server does with its workers, at the same time, and no client notices.

Recycling, scaling, reloads by signal, upgrades, under kept connections and new ones. What
clients had and what the server has counted must be the same in the end, whatever came when.

`TEST_ROUNDS=40 pytest tests/test_all_at_once.py` does it for some two minutes.
"""

import os
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from poolsrv.between.control import Command, ask
from tests.client import Client, head
from tests.server import Server
from tests.test_reload import Site

Start = Callable[..., Server]

ROUNDS = int(os.environ.get("TEST_ROUNDS", "2"))
KEPT, NEW = 64, 4
PATIENCE = 60.0


class Clients:
    """They ask without a pause. An answer must be of code that can be there: of `oldest` at
    least, which is what all workers had before it was asked for, and of `newest` at most.

    One thread asks for all that are kept, one after another, and waits for all of them: a
    thread for each would take the processors from the server.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.oldest = self.newest = 1
        self.failures: list[str] = []
        self._stop = threading.Event()
        self.counts = [0] * (1 + NEW)
        kept = threading.Thread(target=self._guarded, args=(0, self._kept))
        new = [threading.Thread(target=self._guarded, args=(n + 1, self._new)) for n in range(NEW)]
        self._threads = [kept, *new]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def answers(self) -> int:
        return sum(self.counts)

    def wait_for(self, more: int) -> None:
        """Until that many more have been answered, of each kind."""
        wanted = [count + more for count in self.counts]
        self.server.wait_until(
            lambda: self.failures or all(a >= b for a, b in zip(self.counts, wanted, strict=True)),
            PATIENCE,
        )
        assert self.failures == []

    def _guarded(self, number: int, run: Callable[[int], None]) -> None:
        try:
            run(number)
        except (AssertionError, OSError) as error:
            self.failures.append(repr(error))

    def _kept(self, number: int) -> None:
        clients = [Client(self.server.address) for _ in range(KEPT)]
        try:
            while not self._stop.is_set():
                oldest = self.oldest
                for client in clients:
                    client.send(head("GET", "/"))
                for client in clients:
                    self._check(client, oldest, None)
                    self.counts[number] += 1
        finally:
            for client in clients:
                client.close()

    def _new(self, number: int) -> None:
        while not self._stop.is_set():
            oldest = self.oldest
            with Client(self.server.address) as client:
                client.send(head("GET", "/", "Connection: close"))
                self._check(client, oldest, "close")
                client.expect_end()
            self.counts[number] += 1

    def _check(self, client: Client, oldest: int, connection: str | None) -> None:
        response = client.receive()
        assert (response.status, response.get("Connection")) == (200, connection)
        assert oldest <= int(response.body) <= self.newest


class Operator:
    """Gives orders while others are carried out; each must succeed."""

    def __init__(self, server: Server, path: Path, site: Site, clients: Clients) -> None:
        self._server = server
        self._path = path
        self._site = site
        self._clients = clients
        self._crowd = ThreadPoolExecutor()

    def order(self, name: str, **arguments: object) -> "Future[Mapping[str, Any]]":
        return self._crowd.submit(self._ask, name, arguments)

    def _ask(self, name: str, arguments: Mapping[str, object]) -> Mapping[str, Any]:
        answer = ask(self._path, Command(name, arguments), timeout=PATIENCE)
        assert not answer.error, f"{name}: {answer.error}"
        return answer.result

    def write(self) -> None:
        self._clients.newest += 1
        self._site.write(self._clients.newest)

    def reload(self, workers: int) -> None:
        """By the signal, and again by the command, while the number of workers changes."""
        self.write()
        mark = len(self._server.log())
        self._server.terminate(signal.SIGHUP)
        self._server.wait_for_log("SIGHUP: loading", mark, PATIENCE)
        scaled = self.order("scale", processes=workers)
        recycled = self.order("recycle", slot="all")
        again = self.order("reload")
        for done in (scaled, recycled, again):
            done.result(PATIENCE)
        self._server.wait_until(self._is_of_one_generation)
        self._clients.oldest = self._clients.newest

    def upgrade(self, workers: int, number: signal.Signals | None) -> None:
        """By the signal, or by the command while the workers are recycled and scaled."""
        self.write()
        mark, before = len(self._server.log()), self._server.pid
        if number is None:
            scaled = self.order("scale", processes=workers)
            pid = self.order("upgrade").result(PATIENCE)["pid"]
            scaled.exception(PATIENCE)  # it may have been answered by who leaves
        else:
            self._server.terminate(number)
            said = self._server.wait_for_log(r"supervisor\[(\d+)\] POOL434 ", mark, PATIENCE)
            pid = int(said.group(1))
        assert pid != before
        self._server.follow(pid)
        self.order("scale", processes=workers).result(PATIENCE)
        self._clients.oldest = self._clients.newest

    def _is_of_one_generation(self) -> bool:
        rows = self._server.status()["workers"]
        return len({row["generation"] for row in rows if row["pid"]}) == 1


def counted(server: Server) -> float:
    return server.metric("poolsrv_requests_total")


@pytest.mark.once
def test_no_client_notices_anything(server: Start, tmp_path: Path) -> None:
    folder, path = tmp_path / "site", tmp_path / "control"
    folder.mkdir()
    site = Site(folder)
    changing = server(
        "changing:app",
        processes=2,
        threads=4,
        max_processes=6,
        max_requests=500,
        control=path,
        **site.options,
    )
    with Clients(changing) as clients:
        operator = Operator(changing, path, site, clients)
        figures = [counted(changing)]
        for number in range(ROUNDS):
            clients.wait_for(10)
            operator.reload(workers=6 if number % 2 else 1)
            figures.append(counted(changing))
            clients.wait_for(10)
            operator.upgrade(2 + number % 3, None if number % 2 else signal.SIGUSR2)
            figures.append(counted(changing))
        clients.wait_for(10)
        operator.order("scale", processes=2).result(PATIENCE)
    assert clients.failures == []
    assert figures == sorted(figures)
    changing.wait_until(lambda: counted(changing) == clients.answers)
    assert changing.metric("poolsrv_upgrades_total", outcome="done") == ROUNDS
    assert changing.metric("poolsrv_reloads_total", outcome="done") >= ROUNDS
    assert changing.metric("poolsrv_worker_restarts_total", reason="recycle") > 0
    for reason in ("exit", "signal", "startup"):
        assert changing.metric("poolsrv_worker_restarts_total", reason=reason) == 0
    assert "was lost with it" not in changing.log()
