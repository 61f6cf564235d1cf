"""Chromium, driven as a person would: by its protocol for debuggers, over a WebSocket.

https://chromedevtools.github.io/devtools-protocol/ names the methods and events.
"""

import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websocket import WebSocket, WebSocketTimeoutException, create_connection

from tests.waiting import NotYet, wait_until

PROGRAM = shutil.which("chromium")

# A machine that does much else at a time takes long to show a page.
PATIENCE = 60.0


class Failed(AssertionError):
    """What the browser was told to do has failed."""


@dataclass
class Browser:
    """One tab. `faults` are what a person would see in its console, or miss in a page."""

    socket: WebSocket
    faults: list[str] = field(default_factory=list)
    answers: list[tuple[str, int]] = field(default_factory=list)  # (url, status) of all resources
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _loads: int = 0

    def tell(self, method: str, **params: object) -> dict[str, Any]:
        """The result of a method; raises Failed."""
        number = next(self._ids)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = self._next()
            if message.get("id") == number:
                if "error" in message:
                    raise Failed(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result

    def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.socket.recv())
        said = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loads += 1
            case "Network.responseReceived":
                self.answers.append((said["response"]["url"], said["response"]["status"]))
            case "Network.loadingFailed" if not said.get("canceled"):
                self.faults.append(f"{said['type']}: {said['errorText']}")
            case "Log.entryAdded" if said["entry"]["level"] == "error":
                self.faults.append(f"{said['entry']['text']} {said['entry'].get('url')}")
            case "Runtime.exceptionThrown":
                self.faults.append(str(said["exceptionDetails"]))
        return message

    def _after(self, loads: int) -> None:
        end = time.monotonic() + PATIENCE
        while self._loads == loads:
            if time.monotonic() > end:
                raise NotYet("no page was loaded")
            try:
                self._next()
            except WebSocketTimeoutException:
                raise NotYet("no page was loaded") from None

    def open(self, url: str) -> None:
        """Go there, and wait until all of the page is there."""
        loads = self._loads
        result = self.tell("Page.navigate", url=url)
        if "errorText" in result:
            raise Failed(f"{url}: {result['errorText']}")
        self._after(loads)

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript in the page; awaited, if it is a promise."""
        result = self.tell(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            raise Failed(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def leave_by(self, script: str) -> None:
        """Do what leads to another page, and wait for that."""
        loads = self._loads
        self.run(f"{script}; null")
        self._after(loads)

    def choose_file(self, selector: str, path: Path) -> None:
        """In an input of a form."""
        root = self.tell("DOM.getDocument")["root"]["nodeId"]
        node = self.tell("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.tell("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    @property
    def url(self) -> str:
        return str(self.run("location.href"))

    @property
    def text(self) -> str:
        return str(self.run("document.body.innerText"))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Chromium with a profile of its own in the folder."""
    assert PROGRAM is not None
    profile = folder / "profile"
    command = [PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--remote-debugging-port=0", "--remote-allow-origins=*"]
    command += ["--disable-dev-shm-usage", "--disable-background-networking"]
    command += ["--disable-component-update", f"--user-data-dir={profile}", "about:blank"]
    log = folder / "chromium.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        said = profile / "DevToolsActivePort"
        wait_until(
            lambda: said.exists() and len(said.read_text().split()) == 2,
            PATIENCE,
            message=log.read_text,
        )
        port, path = said.read_text().split()
        whole = create_connection(f"ws://127.0.0.1:{port}{path}", timeout=PATIENCE)
        targets = Browser(whole).tell("Target.getTargets")["targetInfos"]
        whole.close()
        (page,) = [found["targetId"] for found in targets if found["type"] == "page"]
        tab = create_connection(f"ws://127.0.0.1:{port}/devtools/page/{page}", timeout=PATIENCE)
        made = Browser(tab)
        for domain in ("Page", "Network", "Log", "Runtime", "DOM"):
            made.tell(f"{domain}.enable")
        yield made
        tab.close()
    finally:
        process.terminate()
        process.wait(PATIENCE)
