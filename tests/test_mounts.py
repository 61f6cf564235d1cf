"""Several applications in one server: which one a request is for, and what it is told."""

import ctypes
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolsrv.errors import ConfigError
from poolsrv.settings.mounts import Mount, find
from poolsrv.settings.sources import from_options
from tests.client import Client, Response
from tests.server import Server, serving

FOLDER = Path(__file__).parent / "c"
APPS = "tests.apps.mounted"

Find = Callable[[list[tuple[bytes, bytes]], bytes, bytes], tuple[int, int]]


# The table in C, against a model


@pytest.fixture(scope="module")
def core_find(tmp_path_factory: pytest.TempPathFactory) -> Find:
    build = tmp_path_factory.mktemp("mounts")
    subprocess.run(
        ["make", "-s", "-C", FOLDER, "mounts", f"BUILD={build}"], check=True, timeout=900
    )
    library = ctypes.CDLL(str(build / "libmounts.so"))

    def call(table: list[tuple[bytes, bytes]], host: bytes, path: bytes) -> tuple[int, int]:
        texts = ctypes.c_char_p * len(table)
        hosts, paths = (texts(*column) for column in zip(*table, strict=True))
        cut = ctypes.c_uint32()
        count = (ctypes.c_size_t(len(host)), ctypes.c_size_t(len(path)))
        number = library.mounts_number(
            hosts, paths, len(table), host, count[0], path, count[1], ctypes.byref(cut)
        )
        return number, cut.value

    return call


def model(table: list[tuple[bytes, bytes]], host: bytes, path: bytes) -> int:
    """The rules, as short as they can be said."""
    name, colon, port = host.lower().rpartition(b":")
    if not colon or (port and not port.isdigit()):
        name = host.lower()
    name = name.removesuffix(b".") if name != b"." else name

    def rank(place: tuple[bytes, bytes]) -> tuple[int, int, int] | None:
        at, prefix = place
        if at.startswith(b"*."):
            fits = name.endswith(at[1:]) and name != at[1:]
        else:
            fits = at in (b"", name)
        kind = 0 if not at else 1 if at.startswith(b"*.") else 2
        return (kind, len(at), len(prefix)) if fits else None

    plain = unquote_to_bytes(path)
    hosts = [place for place in table if rank(place) is not None]
    found = [(at, to) for at, to in hosts if plain == to or plain.startswith(to + b"/")]
    if not found:
        return -404 if hosts else -421
    return table.index(max(found, key=lambda place: rank(place) or (0, 0, 0)))


HOSTS = st.sampled_from([b"", b"a.org", b"*.a.org", b"*.b.a.org", b"b.a.org", b"[::1]", b"org"])
PREFIXES = st.lists(st.sampled_from([b"/a", b"/b", b"/ab", b"/\xc3\xa9"]), max_size=3).map(b"".join)
TABLES = st.lists(st.tuples(HOSTS, PREFIXES), min_size=1, max_size=30, unique=True)
NAMES = st.sampled_from(
    [b"", b"a.org", b"A.Org", b"b.a.org", b"x.b.a.org", b"x.a.org", b".a.org", b"[::1]", b"c", b"."]
)
ENDS = st.sampled_from([b"", b".", b":80", b".:8000", b":"])
PIECES = st.sampled_from(
    [b"/", b"a", b"b", b"%61", b"%2F", b"%2f", b"%00", b".", b"..", b"%C3%A9", b"\xc3\xa9", b"%25"]
)
PATHS = st.lists(PIECES, max_size=8).map(lambda pieces: b"".join([b"/", *pieces]))


@given(TABLES, NAMES, ENDS, PATHS)
def test_the_table_finds_what_the_rules_say(
    core_find: Find, table: list[tuple[bytes, bytes]], name: bytes, end: bytes, path: bytes
) -> None:
    number, cut = core_find(table, name + end, path)
    assert number == model(table, name + end, path)
    if number >= 0:
        # What the mount's part of the path and the rest say together is the path.
        assert unquote_to_bytes(path[:cut]) == table[number][1]
        assert unquote_to_bytes(path[:cut]) + unquote_to_bytes(path[cut:]) == unquote_to_bytes(path)


@given(TABLES, NAMES, PATHS)
def test_a_worker_finds_the_same_for_its_own_requests(
    core_find: Find, table: list[tuple[bytes, bytes]], name: bytes, path: bytes
) -> None:
    mounts = [Mount(to.decode() or "/", at.decode(), "m:app") for at, to in table]
    number, _ = core_find(table, name, path)
    found = find(mounts, name.decode(), unquote_to_bytes(path))
    assert found == (mounts[number] if number >= 0 else None)


# In a server


def ask(
    client: Client, target: str, host: str = "any", *lines: str, method: str = "GET"
) -> Response:
    head = [f"{method} {target} HTTP/1.1", f"Host: {host}", *lines, "", ""]
    client.send("\r\n".join(head).encode("latin-1"))
    return client.receive(to_head=method == "HEAD")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    mounts = [
        f"/api={APPS}:api",
        f"/api/v2={APPS}:v2",
        f"/café={APPS}:other",
        f"a.org/={APPS}:named('a.org')",
        f"*.a.org/x={APPS}:named('below')",
        f"[::1]/={APPS}:named('v6')",
    ]
    directory = tmp_path_factory.mktemp("mounts")
    options = {"trust_proxy": "127.0.0.1", "forwarded_fields": "for,host,prefix"}
    with serving(
        f"{APPS}:root", directory, processes=1, threads=2, mount=mounts, **options
    ) as made:
        yield made


@pytest.fixture
def client(site: Server) -> Iterator[Client]:
    with Client(site.address) as made:
        yield made


@pytest.mark.parametrize(
    ("target", "host", "answer"),
    [
        ("/", "any", "root||/"),
        ("/api", "any", "api|/api|"),
        ("/api/", "any", "api|/api|/"),
        ("/api/x?/api/v2", "any", "api|/api|/x"),
        ("/apix", "any", "root||/apix"),
        ("/API", "any", "root||/API"),
        ("/api/v2/x", "any", "v2|/api/v2|/x"),
        ("/api/v22", "any", "api|/api|/v22"),
        ("/api%2Fv2%2fx", "any", "v2|/api/v2|/x"),
        ("/ap%69/%61%2Fb", "any", "api|/api|/a/b"),
        ("/api%00", "any", "root||/api\0"),
        ("/api%252Fx", "any", "root||/api%2Fx"),
        ("//api", "any", "root||//api"),
        ("/api//v2", "any", "api|/api|//v2"),
        ("/x/../api", "any", "root||/x/../api"),
        ("/api/%2e%2e/x", "any", "api|/api|/../x"),
        ("/./api", "any", "root||/./api"),
        ("/caf%C3%A9/x", "any", "other|/caf\xc3\xa9|/x"),
        ("/api", "a.org", "a.org||/api"),
        ("/api", "A.ORG.:8000", "a.org||/api"),
        ("/x/y", "q.a.org", "below|/x|/y"),
        ("/api", "q.a.org", "api|/api|"),
        ("/x", "xa.org", "root||/x"),
        ("/", "[::1]:8000", "v6||/"),
        ("/", "[::2]", "root||/"),
        ("/", "", "root||/"),
        ("http://a.org/api/x", "a.org", "a.org||/api/x"),
        ("http://A.org:80/api/x", "A.org:80", "a.org||/api/x"),
        ("http://q.org/api/x", "q.org", "api|/api|/x"),
    ],
)
def test_which_application_answers(client: Client, target: str, host: str, answer: str) -> None:
    response = ask(client, target, host)
    assert response.body.decode("latin-1").split("\n") == answer.split("|")


def test_options_of_the_whole_server(client: Client) -> None:
    response = ask(client, "*", method="OPTIONS")
    assert response.body.split(b"\n") == [b"root", b"", b""]


@pytest.mark.parametrize(
    ("lines", "target", "answer"),
    [
        (["X-Forwarded-Host: a.org"], "/api", "a.org||/api"),
        (["X-Forwarded-Host: q.org"], "/api", "api|/api|"),
        (["X-Forwarded-Prefix: /shop"], "/api/x", "api|/shop/api|/x"),
        (["X-Forwarded-Prefix: /shop"], "/shop/api/x", "api|/shop/api|/x"),
        (["X-Forwarded-Prefix: /shop"], "/shop%2Fapi%2Fx", "api|/shop/api|/x"),
        (["X-Forwarded-Prefix: /shop"], "/shop", "root|/shop|"),
        (["X-Forwarded-Prefix: /shop"], "/shopping", "root|/shop|/shopping"),
        (["X-Forwarded-Prefix: /api"], "/api", "root|/api|"),
    ],
)
def test_what_a_trusted_proxy_says_counts(
    client: Client, lines: list[str], target: str, answer: str
) -> None:
    response = ask(client, target, "proxy", *lines)
    assert response.body.decode("latin-1").split("\n") == answer.split("|")


def test_one_connection_for_all(client: Client) -> None:
    """Kept, pipelined, with bodies, and byte by byte: each is answered by its own."""
    body = "x" * 70_000
    head = f"Host: a\r\nContent-Length: {len(body)}"
    for _ in range(20):
        for path, name in [("/", b"root"), ("/api", b"api"), ("/api/v2", b"v2")]:
            assert ask(client, path).body.startswith(name)
            client.send(f"POST {path} HTTP/1.1\r\n{head}\r\n\r\n{body}".encode())
            assert client.receive().body.startswith(name)
    client.send(b"".join(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % p for p in (b"/api", b"/") * 20))
    for name in [b"api", b"root"] * 20:
        assert client.receive().body.startswith(name)
    for byte in b"POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab":
        client.send(bytes([byte]))
    assert client.receive().body.startswith(b"api")


@pytest.fixture
def closed(server: Callable[..., Server], tmp_path: Path) -> Server:
    """Nothing at /, every mount at a host, and some for few."""
    file = tmp_path / "poolsrv.toml"
    file.write_text(f"""
trust-proxy = "127.0.0.1"
[[mount]]
host = "a.org"
path = "/api"
application = "{APPS}:api"
[[mount]]
host = "a.org"
path = "/private"
application = "{APPS}:other"
allow = ["10.0.0.0/8", "unix"]
[[mount]]
host = "a.org"
path = "/api/gone"
status = 404
""")
    return server("", config=file, access_log="-", log_format="json")


def test_what_the_server_answers_itself(closed: Server) -> None:
    with Client(closed.address) as client:
        response = ask(client, "/x", "a.org")
        assert (response.status, response.body) == (
            404,
            b"404 Not Found: nothing is mounted here\n",
        )
        assert ask(client, "/api/gone/x", "a.org").status == 404
        response = ask(client, "/api", "b.org")
        assert response.status == 421
        assert ask(client, "/api", "").status == 421
        # The connection stays.
        assert ask(client, "/x", "a.org", method="HEAD").status == 404
        assert ask(client, "*", "a.org", method="OPTIONS").status == 404
        assert ask(client, "/api", "a.org").status == 200
        # A body that nobody wants is not waited for.
        client.send(b"POST /x HTTP/1.1\r\nHost: a.org\r\nContent-Length: 1000000\r\n\r\n")
        response = client.receive()
        assert (response.status, response.get("Connection")) == (404, "close")
    with Client(closed.address) as client:
        client.send(b"GET /api HTTP/1.0\r\n\r\n")
        assert client.receive().status == 421
    metrics = closed.metrics()
    assert metrics["poolsrv_requests_refused_total", frozenset({("status", "421")})] == 3
    assert metrics["poolsrv_requests_refused_total", frozenset({("status", "404")})] == 5
    # They are no requests of applications: of those there was one.
    answered = {
        dict(labels)["status_class"]: number
        for (name, labels), number in metrics.items()
        if name == "poolsrv_requests_total" and number
    }
    assert answered == {"2xx": 1}
    assert '"reason": "nothing is mounted here"' in closed.log()


def test_a_mount_for_few(closed: Server) -> None:
    with Client(closed.address) as client:
        assert ask(client, "/private", "a.org").status == 403
        assert ask(client, "/private", "a.org", "X-Forwarded-For: 10.1.2.3").status == 200
        assert ask(client, "/private", "a.org", "X-Forwarded-For: 11.1.2.3").status == 403
        assert ask(client, "/private", "a.org", "X-Forwarded-For: 10.1.2.3, 11.1.1.1").status == 403
        assert ask(client, "/private", "a.org", "X-Forwarded-For: unknown").status == 403
    assert '"client": "11.1.2.3"' in closed.log()


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"PROXY TCP4 10.1.2.3 192.0.2.1 5 80", 200),
        (b"PROXY TCP4 11.1.2.3 192.0.2.1 5 80", 403),
        (b"PROXY TCP6 2001:db8::5 ::1 5 80", 200),
        (b"PROXY TCP6 2001:db9::5 ::1 5 80", 403),
        (b"PROXY TCP6 ::ffff:10.1.2.3 ::1 5 80", 200),  # IPv4, as a listener of both sees it
        (b"PROXY TCP6 ::ffff:11.1.2.3 ::1 5 80", 403),
        (b"PROXY UNKNOWN", 403),  # the proxy for itself, which is in none of the networks
    ],
    ids=lambda value: value.decode() if isinstance(value, bytes) else "",
)
def test_a_mount_for_few_behind_the_proxy_protocol(few: Server, said: bytes, status: int) -> None:
    with Client(few.address) as client:
        client.send(said + b"\r\n")
        for _ in range(2):  # it holds for the connection
            assert ask(client, "/few", "a.org").status == status
            # What a client says of itself is not believed: only the proxy could, and it does not.
            spoofed = ask(client, "/few", "a.org", "X-Forwarded-For: 10.9.9.9")
            assert spoofed.status == status
            assert ask(client, "/", "a.org").status == 200


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("few")
    file = directory / "poolsrv.toml"
    file.write_text(f"""
[[mount]]
path = "/few"
application = "{APPS}:api"
allow = ["10.0.0.0/8", "2001:db8::/32"]
""")
    options = {"trust_proxy": "127.0.0.1", "proxy_protocol": "on"}
    with serving(f"{APPS}:root", directory, config=file, **options) as made:
        yield made


# What the settings may say


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        ("api=m:app", "write /path=module:callable"),
        ("/api", "write /path=module:callable"),
        ("/api=", "write /path=module:callable"),
        ("/api/=m:app", "write /api: it stands for all that is below it"),
        ("/a%20b=m:app", "as it reads when it is decoded"),
        ("/a?b=m:app", "as it reads when it is decoded"),
        ("//a=m:app", "write the path that remains"),
        ("/a/../b=m:app", "write the path that remains"),
        ("a.org:80/=m:app", "a host without a port: a.org"),
        ("a b/=m:app", "a host is a name"),
        ("*/=m:app", "a host is a name"),
        ("bücher.example/=m:app", "clients send it as xn--bcher-kva.example"),
        ({"path": "/a"}, "give it an application, a folder"),
        ({"path": "/a", "application": "m:app", "status": 404}, "give it an application, a f"),
        ({"path": "/a", "application": 5}, "application is the text of APP"),
        ({"path": 5, "application": "m:app"}, "a path begins with a slash"),
        ({"path": "/a", "status": 200}, "status is one of 403, 404, 503"),
        ({"path": "/a", "application": "m:app", "allow": ["10.0.0.1/8"]}, "10.0.0.0/8"),
        ({"path": "/a", "application": "m:app", "allow": ["here"]}, "'here' is no network"),
        ({"path": "/a", "application": "m:app", "allow": 5}, "allow is a list of networks"),
        ({"path": "/a", "application": "m:app", "group": "b"}, "there is no group b"),
        ({"path": "/a", "application": "m:app", "root": "b"}, "a mount has no root"),
    ],
    ids=str,
)
def test_mounts_that_are_refused(mount: object, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        from_options(mount=[mount], config=None)
    assert words in str(refused.value)


def test_two_at_one_place() -> None:
    with pytest.raises(ConfigError, match=r"two applications at a\.org/x"):
        from_options(mount=["A.org/x=m:app", "a.org./x=m:other"], config=None)
    with pytest.raises(ConfigError, match="two applications at /\n"):
        from_options(application="m:app", mount=["/=m:other"], config=None)


def test_how_mounts_are_shown() -> None:
    table = {"path": "/b", "host": "B.org", "application": "m:b", "allow": "10.0.0.0/8 unix"}
    settings = from_options(application="m:app", mount=["/a=m:f(1, x='=/')", table], config=None)
    assert settings.title == "/=m:app, /a=m:f(1, x='=/'), b.org/b=m:b (allow 10.0.0.0/8 unix)"


# Loading them


def check(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "poolsrv", "check", *words],
        cwd=folder,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def django_project(folder: Path, name: str) -> None:
    package = folder / name
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "settings.py").write_text(f'SECRET_KEY = "x"\nROOT_URLCONF = "{name}.urls"\n')
    (package / "urls.py").write_text("urlpatterns = []\n")
    (package / "wsgi.py").write_text(f"""
import os
from django.core.wsgi import get_wsgi_application
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{name}.settings")
application = get_wsgi_application()
""")
    (package / "wrapped.py").write_text(f"""
from {name}.wsgi import application as inner
def application(environ, start_response):
    return inner(environ, start_response)
""")


def test_two_django_projects_are_refused_in_words(tmp_path: Path) -> None:
    django_project(tmp_path, "one")
    django_project(tmp_path, "two")
    done = check(tmp_path, "one.wsgi", "--mount", "/two=two.wrapped")
    assert done.returncode == 3
    assert "'one.wsgi' and 'two.wrapped' are two Django projects" in done.stderr
    assert "give each a group of processes" in done.stderr
    one_project = ["one.wsgi", "--mount", "/again=one.wrapped", "--mount", "a.org/=one.wsgi"]
    assert check(tmp_path, *one_project).returncode == 0
    named = check(
        tmp_path, "one.wsgi", "--mount", "/b=two.wsgi", DJANGO_SETTINGS_MODULE="one.settings"
    )
    assert named.returncode == 0, named.stderr


def test_each_mount_may_have_its_own_app_wsgi(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "app.wsgi").write_text(f"""
import sys
assert sys.modules[__name__].__file__ == __file__
def application(environ, start_response): return [b"{name}"]
""")
    settings = from_options(mount=["/one=one/app.wsgi", "/two=two/app.wsgi"], config=None)
    program = f"""
from poolsrv.settings.sources import from_options
from poolsrv.worker.applications import load_all
settings = from_options(mount={[str(m) for m in settings.mount]}, config=None)
print([app({{}}, print) for app in load_all(settings)])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[[b'one'], [b'two']]\n"


def test_an_application_at_two_mounts_is_loaded_once(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("""
print("loading")
def app(environ, start_response): return []
""")
    done = check(tmp_path, "--mount", "/a=shop:app", "--mount", "b.org/=shop:app")
    assert done.stdout.splitlines() == [
        "loading",
        "/a=shop:app, b.org/=shop:app are WSGI applications, and the options are valid",
    ]


def test_a_mount_that_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("def app(environ, start_response): return []\n")
    done = check(tmp_path, "shop:app", "--mount", "/a=shop:ap")
    assert done.returncode == 3
    assert "'shop:ap' cannot be loaded: shop has no 'ap'" in done.stderr


def test_a_program_serves_its_own_beside_others(tmp_path: Path) -> None:
    program = f"""
import poolsrv
from tests.apps.mounted import named
poolsrv.serve(named("mine"), mount="/api={APPS}:api", bind="127.0.0.1:0", admin="off",
              processes=1, preload=PRELOAD, control="off")
"""
    for preload in ("False", "True"):
        process = subprocess.Popen(
            [sys.executable, "-c", program.replace("PRELOAD", preload)],
            cwd=FOLDER.parent.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with process:
            assert process.stdout is not None
            url = process.stdout.readline().split()[1]
            for path, answer in [("/x", "mine\n\n/x"), ("/api/x", "api\n/api\n/x")]:
                with urllib.request.urlopen(f"{url.rstrip('/')}{path}", timeout=10) as response:
                    assert response.read().decode() == answer
            process.terminate()
            assert process.wait(10) == 0


def test_a_part_for_few(server: Callable[..., Server], tmp_path: Path) -> None:
    """It is the application's as ever, at the same SCRIPT_NAME, but not everybody's."""
    file = tmp_path / "poolsrv.toml"
    file.write_text(f"""
trust-proxy = "127.0.0.1"
forwarded-fields = "for,prefix"
[[mount]]
path = "/admin"
allow = "10.0.0.0/8"
[[mount]]
path = "/api"
application = "{APPS}:api"
allow = ["10.0.0.0/8"]
[[mount]]
path = "/api/public"
allow = []
[[mount]]
host = "a.org"
path = "/api/keys"
allow = ["10.9.0.0/16"]
[[mount]]
path = "/lan"
allow = ["127.0.0.1", "fe80::/10"]
""")
    made = server(f"{APPS}:root", config=file)
    inside, far = "X-Forwarded-For: 10.1.1.1", "X-Forwarded-For: 192.0.2.1"
    cases = [
        ("/", "any", far, "root||/"),
        ("/admin/x", "any", far, None),
        ("/%61dmin%2Fx", "any", far, None),
        ("/admin/x", "any", inside, "root||/admin/x"),
        ("/admins", "any", far, "root||/admins"),
        ("/api/x", "any", far, None),
        ("/api/x", "any", inside, "api|/api|/x"),
        ("/api/public/x", "any", far, "api|/api|/public/x"),
        ("/api/keys", "a.org", inside, None),
        ("/api/keys", "a.org", "X-Forwarded-For: 10.9.1.1", "api|/api|/keys"),
        ("/api/keys", "b.org", inside, "api|/api|/keys"),
        # Whom a proxy does not name is not the proxy, which would be let in.
        ("/lan", "any", "Accept: */*", "root||/lan"),
        ("/lan", "any", "X-Forwarded-For: unknown", None),
        ("/lan", "any", "X-Forwarded-For: fe80::1%eth0", None),
    ]
    with Client(made.address) as client:
        for target, host, line, answer in cases:
            response = ask(client, target, host, line)
            if answer is None:
                assert response.status == 403, target
            else:
                assert response.body.decode("latin-1").split("\n") == answer.split("|")
        response = ask(client, "/pre/admin/x", "any", inside, "X-Forwarded-Prefix: /pre")
        assert response.body == b"root\n/pre\n/admin/x"


def test_a_part_of_nothing() -> None:
    settings = from_options(mount=[{"path": "/admin", "allow": "unix"}], config=None)
    with pytest.raises(ConfigError, match="at /admin nothing answers"):
        settings.all_mounts()
    assert settings.all_mounts(called=True)[1].script == b""
