"""A Django project, Flask, Bottle and a script of 2009 in one server, driven by real clients."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import requests

from tests.browser import PROGRAM, Browser, browser
from tests.drivers import LIBRARIES, Driver, Upload, driver
from tests.server import Server, serving
from tests.test_deploy import apache, caddy, free_port, haproxy, nginx, running

# As hosting companies had it in their help pages: it finds its own folder, prints to where mod_wsgi
# told it to, and knows bytes from text by accident.
OLD_SCRIPT = """\
import os, sys
sys.path.insert(0, os.path.dirname(__file__))
sys.stdout = sys.stderr

from helper import greeting

def application(environ, start_response):
    status = '200 OK'
    path = environ.get('SCRIPT_NAME', '') + environ.get('PATH_INFO', '')
    print(path)
    output = greeting(path).encode('latin-1')
    response_headers = [('Content-type', 'text/plain'),
                        ('Content-Length', str(len(output)))]
    start_response(status, response_headers)
    return [output]
"""

BOTTLE = """\
import bottle

app = bottle.Bottle()

@app.get("/hello/<name>")
def hello(name):
    return {"hello": name, "url": bottle.request.url, "script": bottle.request.script_name}

@app.get("/old")
def old():
    bottle.redirect("hello/new")

@app.post("/sum")
def add():
    return {"sum": sum(bottle.request.json)}
"""


def manage(folder: Path, *words: str, **environ: str) -> None:
    subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=folder,
        env=os.environ | environ,
        check=True,
        capture_output=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("together")
    (made / "shop.wsgi").write_text(OLD_SCRIPT)
    (made / "helper.py").write_text("def greeting(path): return 'old and well: ' + path\n")
    (made / "bottled.py").write_text(BOTTLE)
    subprocess.run(
        [sys.executable, "-m", "django", "startproject", "project", made], check=True, timeout=60
    )
    settings = made / "project" / "settings.py"
    with settings.open("a") as file:
        file.write(f"\nSTATIC_ROOT = {str(made / 'collected')!r}\nALLOWED_HOSTS = ['*']\n")
    manage(made, "migrate")
    manage(made, "collectstatic", "--no-input")
    manage(
        made,
        *("createsuperuser", "--no-input", "--username", "ada", "--email", "a@example.org"),
        DJANGO_SUPERUSER_PASSWORD="not secret",
    )
    return made


def starting(folder: Path, **options: object) -> AbstractContextManager[Server]:
    mounts = [
        "/project=project.wsgi",
        f"/project/static={folder}/collected/",
        "/flask=tests.apps.flask_site:app",
        "/bottle=bottled:app",
        "/live=tests.apps.websocket_site:app",
    ]
    usual = {"processes": 2, "threads": 4, "mount": mounts, "pythonpath": folder}
    return serving(f"{folder}/shop.wsgi", folder, **usual | options)


@pytest.fixture(scope="module")
def together(folder: Path) -> Iterator[Server]:
    paths = ["/project/admin/login/", "/flask/page", "/bottle/hello/you", "/"]
    with starting(folder, warm_up=paths) as made:
        yield made


@pytest.fixture(scope="module")
def behind(folder: Path) -> Iterator[Server]:
    """For proxies alone: Django goes on to use the prefix of the first request in a process."""
    fields = "for,proto,host,prefix"
    with starting(folder, trust_proxy="127.0.0.1", forwarded_fields=fields) as made:
        yield made


@pytest.fixture(params=LIBRARIES)
def client(request: pytest.FixtureRequest) -> Iterator[Driver]:
    with driver(request.param) as made:
        yield made


def test_the_admin_of_django(together: Server) -> None:
    site = requests.Session()
    login = site.get(f"{together.url}/project/admin/", timeout=10)
    assert login.url == f"{together.url}/project/admin/login/?next=/project/admin/"
    (style, *_) = re.findall(r'href="(/project/static/[^"]+\.css)"', login.text)
    sheet = site.get(f"{together.url}{style}", timeout=10)
    assert sheet.headers["Content-Type"] == "text/css; charset=utf-8"
    again = site.get(sheet.url, headers={"If-None-Match": sheet.headers["ETag"]}, timeout=10)
    assert again.status_code == 304
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', login.text)
    assert token
    form = {"username": "ada", "password": "not secret", "csrfmiddlewaretoken": token[1]}
    inside = site.post(login.url, form, headers={"Referer": login.url}, timeout=10)
    assert inside.url == f"{together.url}/project/admin/"
    assert "Site administration" in inside.text
    assert 'href="/project/admin/auth/user/add/"' in inside.text
    users = site.get(f"{together.url}/project/admin/auth/user/", timeout=10)
    assert "a@example.org" in users.text


def test_flask_with_its_session(together: Server, client: Driver) -> None:
    at = f"{together.url}/flask"
    assert client.send("GET", f"{at}/page").status == 200
    upload = client.send("POST", f"{at}/upload", Upload("a.bin", bytes(100_000), "note"))
    assert b'"size":100000' in upload.body.replace(b" ", b"")


def test_bottle(together: Server, client: Driver) -> None:
    at = f"{together.url}/bottle"
    reply = client.send("GET", f"{at}/hello/w%C3%B6rld")
    assert b'"script": "/bottle/"' in reply.body
    assert f"{at}/hello/".encode() in reply.body
    reply = client.send("GET", f"{at}/old")
    assert (reply.redirects, b'"hello": "new"' in reply.body) == (1, True)
    json = {"Content-Type": "application/json"}
    assert client.send("POST", f"{at}/sum", b"[1, 2, 3]", json).body == b'{"sum": 6}'


def test_the_script(together: Server, client: Driver) -> None:
    for path in ("/", "/flasks", "/projects/x", "/bottled"):
        reply = client.send("GET", f"{together.url}{path}")
        assert reply.body == b"old and well: " + path.encode()


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl_goes_from_one_to_the_next_on_one_connection(together: Server) -> None:
    paths = ["/", "/flask/page", "/bottle/hello/a", "/project/admin/login/"] * 5
    done = subprocess.run(
        ["curl", "-sSv", *(f"{together.url}{path}" for path in paths)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr.count("HTTP/1.1 200") == len(paths)
    assert done.stderr.count("Re-using existing") == len(paths) - 1


# In a browser


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if PROGRAM is None:
        pytest.skip("needs the package chromium")
    with browser(tmp_path_factory.mktemp("browser")) as made:
        yield made


def walk_through(tab: Browser, at: str, folder: Path) -> None:
    """What somebody does there who manages the site, then uses its parts."""
    tab.answers.clear()
    tab.open(f"{at}/project/admin/")
    assert tab.url == f"{at}/project/admin/login/?next=/project/admin/".replace(
        "next=", f"next={'/shop' if at.endswith('/shop') else ''}"
    )
    # Styles and scripts have come from the folder.
    assert tab.run("[...document.styleSheets].every(sheet => sheet.cssRules.length > 0)")
    color = "getComputedStyle(document.querySelector('#header')).backgroundColor"
    assert tab.run(color) != "rgba(0, 0, 0, 0)"
    tab.run("document.querySelector('#id_username').value = 'ada'")
    tab.run("document.querySelector('#id_password').value = 'not secret'")
    tab.leave_by("document.querySelector('#login-form').submit()")
    assert tab.url == f"{at}/project/admin/"
    assert "Site administration" in tab.text
    tab.open(f"{at}/project/admin/auth/user/")
    assert "a@example.org" in tab.text
    shifted = "document.querySelector('#main').classList.contains('shifted')"
    before = tab.run(shifted)
    tab.run("document.querySelector('#toggle-nav-sidebar').click()")
    assert tab.run(shifted) != before
    kinds = {Path(url.partition("?")[0]).suffix for url, _ in tab.answers if "/static/" in url}
    assert kinds >= {".css", ".js", ".svg"}
    # A file goes up by a form.
    upload = folder / "upload.bin"
    upload.write_bytes(bytes(300_000))
    tab.open(f"{at}/flask/page")
    form = '<form action="upload" method="post" enctype="multipart/form-data">'
    form += '<input type="file" name="file"><input name="note" value="by hand"></form>'
    tab.run(f"document.body.innerHTML = {form!r}")
    tab.choose_file("input[type=file]", upload)
    tab.leave_by("document.querySelector('form').submit()")
    assert '"size":300000' in tab.text.replace(" ", "")
    # A WebSocket, whose address the page finds by itself.
    tab.open(f"{at}/live/")
    echo = """
    new Promise((resolve, reject) => {
        const socket = new WebSocket(new URL("echo", location).href.replace("http", "ws"));
        socket.onopen = () => socket.send("there and back");
        socket.onmessage = event => { resolve(event.data); socket.close(); };
        socket.onerror = reject;
    })"""
    assert tab.run(echo) == "there and back"
    tab.open(f"{at}/bottle/old")
    assert tab.url == f"{at}/bottle/hello/new"
    tab.open(f"{at}/blog/1")
    prefix = "/shop" if at.endswith("/shop") else ""
    assert tab.text == f"old and well: {prefix}/blog/1"
    tab.run("null")  # what was said until now is heard
    unwanted = [fault for fault in tab.faults if "favicon" not in fault]
    assert not unwanted
    assert {status for url, status in tab.answers if "favicon" not in url} <= {200, 302}


# Behind proxies, which know the site by another name and a prefix, and ask us as "backend"

NGINX = """
map $http_upgrade $connection_upgrade { default upgrade; "" ""; }
server {
    listen 127.0.0.1:PORT;
    location /shop/ {
        proxy_pass http://SERVER/;
        proxy_http_version 1.1;
        proxy_set_header Host backend;
        proxy_set_header X-Forwarded-Host $http_host;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Prefix /shop;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
    }
}
"""

APACHE = """
<VirtualHost 127.0.0.1:PORT>
    RequestHeader set X-Forwarded-Prefix /shop
    RequestHeader set X-Forwarded-Proto http
    ProxyPass /shop/ http://SERVER/
</VirtualHost>
"""

CADDY = """
http://:PORT {
    handle_path /shop/* {
        reverse_proxy SERVER {
            header_up Host backend
            header_up X-Forwarded-Host {http.request.hostport}
            header_up X-Forwarded-Prefix /shop
        }
    }
}
"""

# This one leaves the prefix in the path.
HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option forwardfor
frontend shop
    bind 127.0.0.1:PORT
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Prefix /shop
    http-request set-header Host backend
    default_backend server
backend server
    server one SERVER
"""

FRONTS = {
    "nginx": (nginx, NGINX),
    "apache2": (apache, APACHE),
    "caddy": (caddy, CADDY),
    "haproxy": (haproxy, HAPROXY),
}


@contextmanager
def front(name: str, server: Server, folder: Path) -> Iterator[str]:
    """Where the site is behind this proxy."""
    if not shutil.which(name):
        pytest.skip(f"needs the package {name}")
    command, config = FRONTS[name]
    port = free_port()
    config = config.replace("PORT", str(port)).replace("SERVER", f"127.0.0.1:{server.address[1]}")
    with running(command(folder, config), ("127.0.0.1", port), folder / "front.log"):
        yield f"http://127.0.0.1:{port}/shop"


@pytest.mark.once
@pytest.mark.parametrize("name", FRONTS)
def test_each_mount_behind_a_proxy(name: str, behind: Server, tmp_path: Path) -> None:
    """Links, redirects and files lead through the proxy."""
    site = requests.Session()
    with front(name, behind, tmp_path) as at:

        def get(path: str) -> requests.Response:
            return site.get(f"{at}{path}", timeout=20)

        login = get("/project/admin/")
        assert login.url == f"{at}/project/admin/login/?next=/shop/project/admin/"
        style = re.findall(r'href="(/shop/project/static/[^"]+\.css)"', login.text)[0]
        sheet = site.get(f"{at.removesuffix('/shop')}{style}", timeout=20)
        assert (sheet.status_code, sheet.headers["Content-Type"]) == (
            200,
            "text/css; charset=utf-8",
        )
        again = site.get(sheet.url, headers={"If-None-Match": sheet.headers["ETag"]}, timeout=20)
        assert again.status_code == 304
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', login.text)
        assert token
        form = {"username": "ada", "password": "not secret", "csrfmiddlewaretoken": token[1]}
        headers = {"Referer": login.url, "Origin": at.removesuffix("/shop")}
        inside = site.post(login.url, form, headers=headers, timeout=20)
        assert inside.url == f"{at}/project/admin/"
        assert 'href="/shop/project/admin/auth/user/add/"' in inside.text
        # Redirects of WSGI frameworks are whole addresses, or relative to the prefix.
        moved = get("/bottle/old")
        assert moved.url == f"{at}/bottle/hello/new"
        assert moved.json() == {
            "hello": "new",
            "url": f"{at}/bottle/hello/new",
            "script": "/shop/bottle/",
        }
        assert get("/flask/page").status_code == 200
        assert get("/x/y").text == "old and well: /shop/x/y"
        assert get("/projects").text == "old and well: /shop/projects"


@pytest.mark.once
def test_all_of_it_in_a_browser(together: Server, tab: Browser, folder: Path) -> None:
    walk_through(tab, together.url, folder)


@pytest.mark.once
def test_all_of_it_in_a_browser_behind_nginx(
    behind: Server, tab: Browser, folder: Path, tmp_path: Path
) -> None:
    with front("nginx", behind, tmp_path) as at:
        # Another host has other cookies, and each of these names is this machine.
        walk_through(tab, at.replace("127.0.0.1", "shop.localhost"), folder)
