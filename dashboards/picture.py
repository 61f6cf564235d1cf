"""Make status.png, the README's picture of the status page: a shop at work, seen by chromium.

python dashboards/picture.py    needs Debian's chromium
"""

import http.client
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

PICTURE = Path(__file__).parent / "status.png"
SIZE = "1100,1160"

# Rates on the page are over ten seconds.
SECONDS = 12

SHOP = """
import threading
import time

closing = threading.Event()


def app(environ, start):
    path = environ["PATH_INFO"]
    if path.startswith("/chat"):
        chat = environ["poolsrv.socket"]
        while chat.recv(100):
            pass
    elif path.startswith("/reports"):
        closing.wait(60)
    elif path == "/broken":
        raise LookupError(path)
    else:
        time.sleep(0.03)
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"sold"]
"""


def visit(address: tuple[str, int], over: threading.Event) -> None:
    """A customer, who asks on until it is over."""
    client = http.client.HTTPConnection(*address, timeout=10)
    while not over.is_set():
        client.request("GET", "/shelves/12")
        client.getresponse().read()


def ask(address: tuple[str, int], head: str) -> socket.socket:
    """A request, whose answer nobody waits for."""
    client = socket.create_connection(address, 10)
    client.sendall(f"{head}\r\nHost: shop\r\n\r\n".encode())
    return client


def serve(folder: Path) -> "subprocess.Popen[bytes]":
    """The shop."""
    (folder / "shop.py").write_text(SHOP)
    command = [sys.executable, "-m", "poolsrv", "serve", "shop:app", "--processes", "2"]
    command += ["--bind", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--pythonpath", str(folder)]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def address_of(folder: Path, what: str) -> tuple[str, int]:
    """What the server prints; it is asked for until it serves."""
    for _ in range(200):
        found = re.search(rf"^{what} http://(.*):(\d+)/?$", (folder / "log").read_text(), re.M)
        if found:
            return found[1], int(found[2])
        threading.Event().wait(0.05)
    raise SystemExit((folder / "log").read_text())


def photograph(address: tuple[str, int]) -> None:
    """The page as it is now."""
    host, port = address
    command = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars"]
    command += [f"--window-size={SIZE}", f"--screenshot={PICTURE}", f"http://{host}:{port}/"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def main() -> None:
    """Open, sell for a while, take the picture."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        server = serve(folder)
        stack.callback(server.wait)
        stack.callback(server.kill)
        shop, page = address_of(folder, "application"), address_of(folder, "status")
        over = threading.Event()
        visitors = [threading.Thread(target=visit, args=(shop, over)) for _ in range(4)]
        for visitor in visitors:
            visitor.start()
        close: list[Callable[[], None]] = []
        for head in [
            "GET /reports/2026/1 HTTP/1.1",
            "GET /chat/7 HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket",
            "GET /broken HTTP/1.1",
            "GET /broken HTTP/1.1",
            "CONNECT shop:443 HTTP/1.1",
        ]:
            close.append(ask(shop, head).close)
        over.wait(SECONDS)
        photograph(page)
        over.set()
        for end in close:
            end()
        for visitor in visitors:
            visitor.join()
    print(f"{PICTURE.name}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
