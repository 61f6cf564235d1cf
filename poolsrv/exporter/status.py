"""What the status page and /status.json say: a reading, in a person's words.

Answers three questions: is it full, what hangs, may I deploy. Knows neither
HTML nor HTTP.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from poolsrv.between.lifecycle import ServerState, State
from poolsrv.between.scoreboard import Running, Slot, quantile
from poolsrv.exporter.metrics import connections, workers
from poolsrv.exporter.reading import PYTHON, Reading, seconds, state_of


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer, and in words why."""

    yes: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Server:
    version: str
    python: str
    application: str
    addresses: tuple[str, ...]
    pid: int
    state: str
    generation: int
    uptime_seconds: float
    maintenance: bool


@dataclass(frozen=True, slots=True)
class Threads:
    """`utilization_ratio` is over `window_seconds`."""

    total: int
    busy: int
    utilization_ratio: float


@dataclass(frozen=True, slots=True)
class Queue:
    length: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class Requests:
    """Counts since the start of the server; rates and quantiles over `window_seconds`.

    `errors` are answers of the application with 5xx and all that the server
    `refused`, which is by status, those that never were left out. A rate is None
    until there is a window to take it from, a quantile also without requests.
    """

    total: int
    errors: int
    refused: dict[str, int]
    per_second: float | None
    errors_per_second: float | None
    median_seconds: float | None
    p99_seconds: float | None


@dataclass(frozen=True, slots=True)
class RunningRequest:
    """`group` is "" in a server that has one; `slot` is the place in it."""

    group: str
    slot: int
    thread: int
    pid: int
    state: str
    age_seconds: float
    queue_seconds: float
    method: str
    path: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Worker:
    """`restarts` are by reason, the reasons that never happened left out."""

    group: str
    slot: int
    pid: int
    state: str
    generation: int
    age_seconds: float
    threads: int
    busy: int
    load: int
    limit: int
    requests: int
    resident_bytes: int
    cpu_seconds: float
    restarts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Group:
    """A group of processes; what the whole server says of itself, said of this part."""

    name: str
    ready: Verdict
    deployable: Verdict
    generation: int
    threads: Threads
    queue: Queue
    requests: Requests


@dataclass(frozen=True, slots=True)
class Status:
    """`running` is sorted, oldest first. Methods and paths are the clients' words.

    `workers` has a row for each slot that has a process or is about to get one.
    `deaths` counts workers that ended unasked since the start of the server.
    `window_seconds` is 0 until there is a window. `groups` are those that the file names,
    empty if there is one.
    """

    server: Server
    ready: Verdict
    deployable: Verdict
    window_seconds: float
    deaths: int
    threads: Threads
    queue: Queue
    requests: Requests
    connections: dict[str, int]
    workers: list[Worker]
    running: list[RunningRequest]
    groups: list[Group]


def _of_all(groups: Sequence[Reading], judge: Callable[[Reading], Verdict]) -> Verdict:
    """What holds for a server of groups: the worst, and whose that is."""
    verdicts = [(group.group, judge(group)) for group in groups]
    bad = [(name, verdict) for name, verdict in verdicts if not verdict.yes]
    words = "; ".join(f"{name}: {verdict.reason}" for name, verdict in bad or verdicts)
    return Verdict(not bad, words)


def ready(reading: Reading) -> Verdict:
    """Does the server take requests?"""
    if reading.groups:
        return _of_all(reading.groups, ready)
    if reading.state is ServerState.DRAINING:
        return Verdict(False, "the server drains and will stop")
    wanted = reading.snapshot.supervisor["wanted"]
    if not wanted:
        return Verdict(True, "no worker is wanted until a request comes")
    slots = reading.slots_in(State.READY)
    running = [slot for slot in slots if _runs(reading, slot)]
    if running:
        return Verdict(True, f"{len(running)} of {wanted} workers are ready")
    if slots:
        return Verdict(False, "no worker runs: they are stopped, or have just died")
    return Verdict(False, f"no worker is ready ({_others(reading) or 'none has started'})")


def _runs(reading: Reading, slot: Slot) -> bool:
    """Whether its process is not stopped, as far as anybody knows."""
    usage = reading.usage.get(slot.name)
    return usage is None or usage.runs


def deployable(reading: Reading) -> Verdict:
    """Is nothing under way that a reload would have to wait for?"""
    if reading.groups:
        return _of_all(reading.groups, deployable)
    if reading.state is not ServerState.SERVING:
        return Verdict(False, f"the server is {reading.state.name.lower()}")
    if others := _others(reading):
        return Verdict(False, f"workers: {others}")
    generation = reading.snapshot.supervisor["generation"]
    return Verdict(True, f"generation {generation} serves and nothing is under way")


def _others(reading: Reading) -> str:
    """The workers that are not ready, as "1 starting, 2 draining"."""
    return ", ".join(
        f"{number} {state.name.lower()}"
        for state, number in workers(reading).items()
        if number and state is not State.READY
    )


def status(reading: Reading) -> Status:
    supervisor = reading.snapshot.supervisor
    slots = reading.snapshot.slots
    about = reading.about
    return Status(
        server=Server(
            version=about.version,
            python=PYTHON,
            application=about.application,
            addresses=about.addresses,
            pid=about.supervisor_pid,
            state=reading.state.name.lower(),
            generation=supervisor["generation"],
            uptime_seconds=reading.age(supervisor["started_at"]),
            maintenance=bool(supervisor["maintenance"]),
        ),
        ready=ready(reading),
        deployable=deployable(reading),
        window_seconds=reading.elapsed if reading.is_recent else 0.0,
        deaths=sum(map(_deaths, slots)),
        threads=_threads(reading),
        queue=_queue(reading),
        requests=_requests(reading),
        connections=connections(reading),
        workers=[_worker(reading, slot) for slot in slots if state_of(slot) is not State.EMPTY],
        running=sorted(
            (_running(reading, slot, running) for slot in slots for running in slot.running),
            key=lambda request: request.age_seconds,
            reverse=True,
        ),
        groups=[
            Group(
                group.group,
                ready(group),
                deployable(group),
                group.snapshot.supervisor["generation"],
                _threads(group),
                _queue(group),
                _requests(group),
            )
            for group in reading.groups
        ],
    )


def _threads(reading: Reading) -> Threads:
    return Threads(reading.threads, reading.busy, reading.utilization)


def _queue(reading: Reading) -> Queue:
    return Queue(reading.queue_length, reading.queue_age)


def _requests(reading: Reading) -> Requests:
    before, now = reading.baseline, reading.present
    refused = now.refused
    elapsed = reading.elapsed if reading.is_recent else 0.0
    counts = reading.since_baseline("duration")[:-1] if elapsed else ()
    asked = [totals.requests + sum(totals.refused.values()) for totals in (before, now)]
    return Requests(
        total=asked[1],
        errors=now.errors,
        refused={status: number for status, number in refused.items() if number},
        per_second=(asked[1] - asked[0]) / elapsed if elapsed else None,
        errors_per_second=(now.errors - before.errors) / elapsed if elapsed else None,
        median_seconds=_quantile(0.5, counts),
        p99_seconds=_quantile(0.99, counts),
    )


def _quantile(share: float, counts: tuple[int, ...]) -> float | None:
    time = quantile(share, counts)
    return None if time is None else seconds(time)


def _deaths(slot: Slot) -> int:
    """Workers of the slot that ended unasked."""
    restarts = slot.slot.by_value("restarts")
    return sum(restarts.values()) - restarts["recycle"]


def _worker(reading: Reading, slot: Slot) -> Worker:
    usage = reading.usage.get(slot.name)
    return Worker(
        group=slot.group,
        slot=slot.number,
        pid=slot.slot["pid"],
        state=state_of(slot).name.lower(),
        generation=slot.slot["slot_generation"],
        age_seconds=reading.age(slot.slot["spawned_at"]),
        threads=slot.worker["threads"],
        busy=slot.busy,
        load=slot.load,
        limit=slot.limit,
        requests=sum(slot.threads.all("requests")),
        resident_bytes=usage.resident if usage else 0,
        cpu_seconds=reading.cpu[slot.name],
        restarts={
            reason: number for reason, number in slot.slot.by_value("restarts").items() if number
        },
    )


def _running(reading: Reading, slot: Slot, running: Running) -> RunningRequest:
    return RunningRequest(
        group=slot.group,
        slot=slot.number,
        thread=running.thread,
        pid=slot.slot["pid"],
        state=running.state.name.lower(),
        age_seconds=reading.age(running.since),
        queue_seconds=seconds(max(running.since - running.ready, 0)),
        method=running.method,
        path=running.path,
        request_id=running.request_id,
    )
