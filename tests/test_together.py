"""A Django project, Flask, Bottle and a script of 2009 in one server, driven by real clients."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.drivers import LIBRARIES, Driver, Upload, driver
from tests.server import Server, serving

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


@pytest.fixture(scope="module")
def together(folder: Path) -> Iterator[Server]:
    mounts = [
        "/project=project.wsgi",
        f"/project/static={folder}/collected/",
        "/flask=tests.apps.flask_site:app",
        "/bottle=bottled:app",
    ]
    with serving(
        f"{folder}/shop.wsgi",
        folder,
        processes=2,
        threads=4,
        mount=mounts,
        pythonpath=folder,
        warm_up=["/project/admin/login/", "/flask/page", "/bottle/hello/you", "/"],
    ) as made:
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
