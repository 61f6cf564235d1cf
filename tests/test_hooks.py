"""Functions of the application at the beginning and the end of processes, and once()."""

import os
import signal
from pathlib import Path

import pytest

import poolsrv
from poolsrv.between import claims
from tests.server import run_to_end, serving

APP = "tests.apps.hooked:application"
HOOKS: dict[str, object] = {
    "on_worker_start": "tests.apps.hooked:worker_start",
    "on_worker_stop": "tests.apps.hooked:worker_stop",
    "on_service_start": "tests.apps.hooked:service_start",
}


def noted(directory: Path) -> list[str]:
    return [line.split()[0] for line in (directory / "hooks").read_text().splitlines()]


@pytest.mark.parametrize("preload", [False, True])
def test_hooks_are_called_where_they_should(tmp_path: Path, preload: bool) -> None:
    hooks = dict(HOOKS)
    if preload:
        hooks["on_template_ready"] = "tests.apps.hooked:template_ready"
    with serving(APP, tmp_path, processes=3, preload=preload, **hooks) as server:
        assert noted(tmp_path).count("start") == 3
        assert noted(tmp_path)[preload] == "service"  # before any worker starts
        workers = server.workers()
        server.terminate(signal.SIGHUP)
        server.wait_until(lambda: set(server.workers()).isdisjoint(workers))
        server.wait_until(lambda: noted(tmp_path).count("stop") == 3)
    calls = noted(tmp_path)
    assert calls.count("start") == calls.count("stop") == 6
    assert calls.count("service") == calls.count("once") == 1
    assert calls.count("template") == 2 * preload


def test_a_hook_that_fails_ends_the_start(tmp_path: Path) -> None:
    status, log = run_to_end(
        APP,
        tmp_path,
        processes=1,
        on_service_start="tests.apps.hooked:fails",
    )
    assert status == 3
    assert "--on-service-start tests.apps.hooked:fails: calling fails failed" in log
    assert "RuntimeError: no database" in log


def test_what_is_forked_has_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBE_DIR", str(tmp_path))
    monkeypatch.setenv("THREAD", "1")
    status, log = run_to_end(APP, tmp_path, processes=1, preload=True)
    assert status == 3
    assert "--preload: importing the application started 1 more thread (ticker)" in log
    with serving(APP, tmp_path, processes=1, env={"THREAD": "1"}):
        pass  # a worker may have as many as it likes


def test_the_template_has_its_hook_only_with_preload(tmp_path: Path) -> None:
    status, log = run_to_end(APP, tmp_path, on_template_ready="tests.apps.hooked:template_ready")
    assert status == 2
    assert "add --preload, or use on-worker-start" in log


def test_once_is_for_names(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="workers"):
        poolsrv.once("job")
    fd = claims.make()
    try:
        monkeypatch.setattr(claims, "_servers", [fd])
        assert [poolsrv.once(name) for name in ("job", "jo", "job", "obj", "jo")] == [
            True,
            True,
            False,
            True,
            False,
        ]
        for name in ("", "x" * 201, "two\nlines"):
            with pytest.raises(ValueError, match="a name has"):
                poolsrv.once(name)
    finally:
        os.close(fd)
