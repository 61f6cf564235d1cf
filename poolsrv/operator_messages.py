"""What the server says to operators: each message stands here once, under a code that stays.

Used by every process. `logging` takes a message as it takes any text, and poolsrv.log shows
its code: `_log.info(operator_messages.WORKER_READY, extra=...)`. A code is never used again
for something else; a message that is gone leaves a gap.
`python -m poolsrv.operator_messages` prints ERRORS.md.
Long, because the table of messages is.
"""

import re


class Message(str):
    """A text for logging, with its code, and what a reader wants to know beside it."""

    __slots__ = ("cause", "code", "effect", "heading", "remedy")

    code: str
    heading: str
    cause: str
    effect: str
    remedy: str

    def __new__(
        cls, number: int, text: str, cause: str, effect: str, remedy: str, heading: str = ""
    ) -> "Message":
        """`heading` stands in ERRORS.md for a text that is made elsewhere."""
        message = super().__new__(cls, text)
        message.code = f"POOL{number}"
        message.heading = heading or re.sub(r"%[a-z]", "…", text)
        message.cause, message.effect, message.remedy = cause, effect, remedy
        return message


_NOTHING = "Nothing."

# 1xx: the server starts and ends.

STARTS = Message(
    101,
    "poolsrv %s on Python %s starts: %s processes x %d threads",
    "The server was started.",
    "It opens its addresses, then loads the application.",
    _NOTHING,
)
BAD_SETTINGS = Message(
    102,
    "%s",
    "An option is unknown, or its value is not allowed; the text says which.",
    "The server ends with status 2.",
    "The text names it. `poolsrv check APP` shows all faults at once.",
    "the server cannot start: an option",
)
STOPPED = Message(
    103,
    "poolsrv has stopped",
    "The server was told to stop, and all its processes have ended.",
    "None of it is left.",
    _NOTHING,
)
STOPS = Message(
    104,
    "%s: finishing what runs; once more stops at once",
    "The signal came in.",
    "No new connections; requests have `--graceful-timeout` to end.",
    "Send it once more to end at once.",
)
TOLD_TO_STOP = Message(
    105,
    "told to stop: finishing what runs",
    "`poolsrv stop`.",
    "As for the signal SIGTERM.",
    _NOTHING,
)
TOLD_TO_STOP_NOW = Message(
    106,
    "told to stop at once",
    "`poolsrv stop --now`.",
    "Running requests are lost.",
    "Use `poolsrv stop` to let them finish.",
)
LOGS_REOPENED = Message(
    107,
    "%s: opening the log files anew",
    "The signal came in, as a rule from logrotate.",
    "All processes write to the files that have the names now.",
    _NOTHING,
)
SIGNAL_WITHOUT_MEANING = Message(
    108,
    "%s: means nothing here; SIGTERM stops, SIGHUP reloads",
    "A signal that the server keeps from ending it.",
    "None.",
    "Look for who sends it.",
)
CTRL_C = Message(
    109,
    "Ctrl-C stops it%s",
    "The server runs in a terminal.",
    "None.",
    _NOTHING,
)
SUPERVISOR_FAILED = Message(
    110,
    "the supervisor failed at one event and goes on",
    "A fault of poolsrv, or a system call that failed; the traceback says where.",
    "The event is lost, the server serves on. `poolsrv_supervisor_faults_total` counts them.",
    "Report it with the traceback.",
)
WORD_DROPPED = Message(
    111,
    "what somebody said was dropped: %s",
    "A process that is not what the server takes it for has written to a channel of the server.",
    "None.",
    "If it comes again, look for code of the application that writes to descriptors not its own.",
)
MANAGER_UNREACHABLE = Message(
    112,
    "the service manager cannot be told %s: %s",
    "The socket in NOTIFY_SOCKET takes nothing.",
    "systemd may take the server for one that does not start, or hangs.",
    "Set `NotifyAccess=main`, and let the server reach the socket.",
)
NO_APPLICATION = Message(
    113,
    "%s",
    "The application cannot be loaded, or its workers end while they start. The text ends with its "
    "traceback, if there is one.",
    "The server ends with status 3.",
    "Mend what the traceback shows. `poolsrv check APP` loads it without a server.",
    "the server cannot start: the application",
)
NO_LISTENER = Message(
    114,
    "%s",
    "An address is in use, privileged, or none of this machine.",
    "The server ends with status 4.",
    "The text names who holds it, or another way.",
    "the server cannot start: an address",
)
MACHINE_REFUSES = Message(
    115,
    "%s",
    "The kernel, or what confines the server, refuses a call; or a supervisor that was to be "
    "followed is gone.",
    "The server ends with status 5.",
    "The text says what to allow.",
    "the server cannot start: the machine",
)

FILES_EXPOSED = Message(
    116,
    "%s",
    "A mount, or `--sendfile-root`, names a folder in which other files lie as well.",
    "None by itself. But a mount gives everything in its folder to everybody, and below "
    "`--sendfile-root` an application that takes names from clients may be talked into giving "
    "away anything.",
    "Name a folder that holds nothing but files for clients. `poolsrv check APP` says it, too.",
    "a folder gives away more than was meant",
)

# 2xx: workers, templates and the exporter.

WORKER_READY = Message(
    201,
    "worker is ready",
    "A worker has loaded the application.",
    "Requests go to it, when its generation serves.",
    _NOTHING,
)
WORKER_ENDED = Message(
    202,
    "%s",
    "The text says how: its exit status, a signal, the kernel for want of memory, a limit. With "
    "status 0 it was told to.",
    "Each request that was inside has a line of its own. Its client gets 502; if its answer had "
    "begun, the connection ends. All other requests and connections go on, in other workers.",
    "Look for the reason in the lines of that worker above. Out of memory: fewer `--processes`, "
    "or `--max-rss`.",
    "worker … (has ended)",
)
WORKER_KILLED = Message(
    203,
    "worker %s: killed",
    "It has not ended, or not started, within the time that an option gives it, or uses more "
    "memory than `--max-rss-kill`; the text says which.",
    "Its requests are lost. Another worker takes its place.",
    "Give more time with `--graceful-timeout` or `--startup-timeout`; `poolsrv stacks` shows "
    "what a worker does.",
)
WORKER_REPLACED = Message(
    204,
    "worker is replaced: %s",
    "It has reached a limit (`--max-requests`, `--max-age`, `--max-rss`), or has lost a thread.",
    "None: the other is ready before it finishes.",
    "Of a lost thread POOL304 says what it did.",
)
WORKER_HANGS = Message(
    205,
    "worker hangs: a call keeps the interpreter",
    "Code in C has not let the GIL go for `--watchdog-timeout`; the stacks say whose.",
    "The worker is killed with its requests, another takes its place.",
    "Mend that code: a regular expression that explodes, a library that computes under the GIL.",
)
WORKER_CANNOT_LOAD = Message(
    206,
    "worker cannot load the application: %s",
    "The application, which had been loaded before, raises at import now.",
    "The worker is started again, after longer and longer pauses.",
    "The text has the traceback: as a rule a service that the application asks at import.",
)
FORK_FAILED = Message(
    207,
    "a worker could not be forked; it is tried again: %s",
    "The system has no memory or no process left.",
    "One worker fewer, until it succeeds.",
    "Raise the limit of processes (`ulimit -u`, `TasksMax=`, pids of a container), or add memory.",
)
WORKER_UNWANTED = Message(
    208,
    "a worker is not wanted or cannot be watched",
    "No descriptor was left for it, or it was started as the server had decided otherwise.",
    "It is killed; it has served nobody.",
    "If it comes again, raise the limit of open files (`LimitNOFILE=`).",
)
CONNECTIONS_MOVE = Message(
    209,
    "%d connections that the worker had not received go to others",
    "A worker has ended before it took what was sent to it.",
    "None: other workers serve them.",
    _NOTHING,
)
MAIN_THREAD_FAILED = Message(
    210,
    "the main thread cannot go on; another worker follows",
    "A signal handler of the application has raised, or the application has closed descriptors "
    "that are not its own, or has put others in their place (`os.dup2`); the traceback says which.",
    "The requests of the worker are lost.",
    "Mend the handler; close only what the application has opened, and give no number to `os.dup2` "
    "but 0, 1, 2 and its own.",
)
STOP_HOOK_FAILED = Message(
    211,
    "%s",
    "The function that `--on-worker-stop` names has raised; the text has the traceback.",
    "The worker ends all the same.",
    "Mend the function.",
    "on-worker-stop …",
)
THREADS_LEFT = Message(
    213,
    "threads of the application do not end, and are left behind",
    "A worker has ended, but not the threads that the application has started; the stack says "
    "where they are.",
    "The worker ends 5 s (or a quarter of `--graceful-timeout`) later than it could. What is "
    "registered with `atexit` runs.",
    "Make them daemons (`daemon=True`), or end them by `atexit` or `--on-worker-stop`.",
)
SIGNALS_TAKEN_BACK = Message(
    212,
    "%s",
    "The application has set handlers of signals that the server needs, or asyncio's wake-up.",
    "The server has taken them back.",
    "Use `atexit` or `--on-worker-stop` for what is to be done at the end.",
    "the application has set … (signals)",
)
NO_KEEPER = Message(
    214,
    "this worker has no keeper: %s",
    "The system has no process left for it, or does not let processes share descriptors.",
    "The worker serves. If it is killed, connections with requests that wait in it are lost.",
    "Raise the limit of processes: `ulimit -u`, `TasksMax=` of systemd, pids of a container.",
)
KEEPER_KILLED = Message(
    215,
    "the keeper of a worker that has ended did not end: killed",
    "It hangs, or is stopped again and again, by a debugger for example.",
    "The connections that it kept open have ended.",
    "Let it run.",
)
TEMPLATE_ENDED = Message(
    221,
    "template ended: it %s",
    "The process from which workers are forked was killed, or the application ended it.",
    "Its workers serve on. It is started again, and loads the application anew.",
    "Look for who kills it: the kernel for want of memory, or `os._exit` in the application.",
)
TEMPLATE_KILLED = Message(
    222,
    "template %s: killed",
    "It has not loaded the application, forked or ended in time.",
    "Its workers serve on. It is started again, if it is that of the generation that serves.",
    "More time for the start: `--startup-timeout`.",
)
TEMPLATE_CANNOT_LOAD = Message(
    223,
    "template cannot load the application: %s",
    "It was started again, and the application raises at import now.",
    "Workers that run serve on, none follows them; it is tried again.",
    "Mend what the traceback names, then `poolsrv reload`.",
)
TEMPLATE_NOT_STARTED = Message(
    224,
    "%s",
    "The system has no memory or process left, or the configuration cannot be read.",
    "It is tried again.",
    "The text says what was missing.",
    "the application cannot be loaded: …",
)
EXPORTER_ENDED = Message(
    231,
    "exporter ended: it %s; starting it again",
    "The process of metrics and status page was killed.",
    "No metrics for a second; counters are kept.",
    "Look for who kills it.",
)
EXPORTER_NOT_STARTED = Message(
    232,
    "the exporter cannot be started; it is tried again: %s",
    "The system has no memory or process left.",
    "No metrics until it succeeds.",
    "The text says what was missing.",
)
ADMIN_CLIENT_GONE = Message(
    233,
    "admin client went away or was too slow: %r",
    "A client of `/metrics` or of the status page has not taken its answer.",
    "None.",
    _NOTHING,
)
LOCK_OWNER_DIED = Message(
    250,
    "the last owner of the lock %r ended while it had it",
    "A worker, or a thread of one, has ended between `acquire` and `release` of "
    "`poolsrv.shared.Lock`.",
    "The next owner has the lock, and is told `Outcome.OWNER_DIED`.",
    "See in the log why the worker ended. Have the application mend what the owner left half done.",
)

# 3xx: requests.

REFUSED = Message(
    301,
    "%s",
    "Clients have asked for what is not allowed, or no thread came free in time; the text counts "
    "them and gives the latest reason.",
    "These clients got an answer of 4xx or 5xx.",
    "503: more `--processes` or `--threads`, or a quicker application; see docs/tuning.md.",
    "… requests were refused",
)
APPLICATION_FAILED = Message(
    302,
    "the application failed",
    "It has raised; the traceback says where.",
    "The client got 500, or its connection is cut if the answer had begun.",
    "Mend the application.",
)
REQUEST_INTERRUPTED = Message(
    303,
    "a request gives no sign of life: it is interrupted with RequestTimeout",
    "The application has given no piece of its answer and taken none of its input for "
    "`--request-timeout`; the stack says where it waits.",
    "The client gets 504, or its connection is cut if the answer had begun.",
    "Give the call that waits a time limit; a request that may take longer: "
    "`environ['poolsrv.set_timeout']`.",
)
THREAD_LOST = Message(
    304,
    "a thread does not come back from its request: its client is told, the worker is replaced",
    "It waits in C, and was not interrupted within `--interrupt-timeout`; the stack says where.",
    "The client gets 504 or the cut. Other requests of the worker finish first.",
    "Give the call that waits a time limit of its own.",
)


def _note(number: int, heading: str, cause: str, effect: str, remedy: str) -> Message:
    """Of the core of a worker, which makes the text (csrc/worker/notes.h)."""
    return Message(number, "%s", cause, effect, remedy, heading)


# By number.
NOTES = {
    int(message.code.removeprefix("POOL")): message
    for message in (
        REFUSED,
        _note(
            305,
            "… more messages like these were dropped",
            "A worker has more than ten lines of this kind in a second, as clients may cause.",
            "The lines are lost; metrics count what they would have said.",
            "The lines before this one say what there is to do.",
        ),
        _note(
            311,
            "the access log cannot be written: …",
            "The disk is full, or whoever reads the pipe is too slow.",
            "Lines are lost (`poolsrv_log_lines_lost_total`); no request waits for them.",
            "Make room, or look at the reader.",
        ),
        _note(
            312,
            "the file … while it was sent; the connection is cut",
            "It was cut short or written in its place while clients got it.",
            "The client sees that its answer is incomplete.",
            "Write a new file beside it and rename that.",
        ),
        _note(
            313,
            "a file cannot be opened: …",
            "The system has no descriptor left, or the disk fails; the text says which.",
            "The client gets 503 or 500.",
            "The text says what was missing.",
        ),
        _note(
            314,
            "this kernel, or its seccomp filter, has no openat2: …",
            "Linux before 5.6, or a container whose filter refuses it.",
            "Symbolic links below folders of mounts are answered 404.",
            "Allow openat2 in the filter, or link nothing below these folders.",
        ),
        _note(
            315,
            "X-Sendfile names …",
            "The application named a file that is not below `--sendfile-root`, or not there.",
            "The client gets 404.",
            "Name the folder with `--sendfile-root`, or correct the path.",
        ),
        _note(
            316,
            "cannot keep a request body in a temporary file: …",
            "The folder of TMPDIR is full, or cannot be written.",
            "The client gets 500.",
            "Make room in TMPDIR, or raise `--body-buffer`.",
        ),
        _note(
            317,
            "… connections were lost for want of descriptors",
            "The worker has as many files open as it may.",
            "Their clients see the connection end.",
            "Raise the limit of open files: `ulimit -n`, `LimitNOFILE=` of systemd.",
        ),
        _note(
            318,
            "the application sent … its Content-Length",
            "The length that it announced is not that of its answer.",
            "More than announced is cut; less ends the connection.",
            "Mend the application, or leave Content-Length to the server.",
        ),
        _note(
            319,
            "closed a connection: … (PROXY header)",
            "`--proxy-protocol` is on, and a peer that is not trusted, or no proxy, has connected.",
            "It is closed without an answer.",
            "Name the proxy with `--trust-proxy`.",
        ),
        _note(
            320,
            "its client is gone",
            "The client has left while the application wrote its answer.",
            "The rest of the answer is thrown away.",
            _NOTHING,
        ),
        _note(
            321,
            "its body could not be read, …",
            "The client has sent a body that is not HTTP, too large, too slow or cut off.",
            "The application got an exception; the client gets the status that the text names.",
            _NOTHING,
        ),
    )
}

FILES_MISSING = Message(
    306,
    "nothing to serve at %s: there is no such folder or file",
    "A mount or `--sendfile-root` names it, and a worker that starts does not find it.",
    "Requests for it are answered 404. A folder that is made later is found within a second.",
    "Make it, or correct the path; `poolsrv check APP` names it, too.",
)
# 4xx: orders of operators.

RELOADS = Message(
    401,
    "%s: loading the application anew",
    "The signal came in, or a file that `--reload-on-touch` names has changed.",
    "The new code is loaded beside the old one, which serves until all its workers are ready.",
    _NOTHING,
)
TOLD_TO_RELOAD = Message(
    402,
    "told to reload: loading the application anew",
    "`poolsrv reload`.",
    "As for SIGHUP.",
    _NOTHING,
)
TOOK_OVER = Message(
    403,
    "generation %d has taken over",
    "A reload is done.",
    "The new code serves; workers of the old one finish and end.",
    _NOTHING,
)
RELOAD_FAILED = Message(
    404,
    "the reload failed; the code from before serves on: %s",
    "The new code raises at import, ends, or is not ready in time, or the configuration has a "
    "mistake; the text says which.",
    "None for clients.",
    "Mend it, then reload again.",
)
NO_RELOAD = Message(
    405,
    "%s: no reload; the server ends",
    "SIGHUP came after the order to stop.",
    "None.",
    _NOTHING,
)
RELOAD_CANNOT_CHANGE = Message(
    406,
    "a reload cannot change %s; restart the server for that",
    "The configuration has other values for these options now.",
    "The values from the start hold.",
    "Restart. SETTINGS.md says of each option whether a reload changes it.",
)
GROUP_WAKES = Message(
    418,
    "a request has come: the group starts",
    'A group with `processes = "0..N"` had no process.',
    "The request waits until the application is loaded.",
    _NOTHING,
)
GROUP_RESTS = Message(
    419,
    "no request for %g s: the processes of the group end",
    'A group with `processes = "0..N"`, and its `idle-timeout`.',
    "Its next request starts it anew.",
    _NOTHING,
)
TOLD_TO_RECYCLE = Message(
    407,
    "told to recycle: %s",
    "`poolsrv recycle`.",
    "These workers are replaced, one after another.",
    _NOTHING,
)
TOLD_TO_SCALE = Message(
    408,
    "told to scale: from %d to %d workers",
    "`poolsrv scale`.",
    "Workers are started, or finish and end.",
    _NOTHING,
)
CONTROL_CLIENT_GONE = Message(
    409,
    "a control client did not take its answer: %s",
    "A command was ended before its answer came.",
    "What it asked for is done all the same.",
    _NOTHING,
)

WATCHES = Message(
    411,
    "changes of code reload the application; watched: %s",
    "`--reload-on-change`.",
    "When a Python file in these folders changes, the server reloads.",
    _NOTHING,
)
CODE_CHANGED = Message(
    412,
    "code has changed: %s",
    "A Python file in a folder that is watched was written, made or removed.",
    "As for SIGHUP.",
    _NOTHING,
)
WATCHES_NO_MORE = Message(
    413,
    "changes of code are not seen any more",
    "The kernel or the library watchfiles has refused to watch; the traceback says why.",
    "The server serves on. SIGHUP and `poolsrv reload` still reload.",
    "Often `fs.inotify.max_user_watches` is too low for the folder: raise it, or start in a "
    "smaller folder.",
)
MAINTENANCE = Message(
    414,
    "maintenance: %s is there, and applications get no requests",
    "Somebody has made the file of `--maintenance-file`.",
    "Clients are answered 503, but for those of `--maintenance-bypass`. What runs goes on.",
    "Remove the file when it is over.",
)
MAINTENANCE_OVER = Message(
    415,
    "maintenance is over: %s is gone",
    "The file of `--maintenance-file` was removed.",
    "Applications get requests again.",
    _NOTHING,
)
WATCHER_ENDED = Message(
    416,
    "the process that watches the code %s: changes of code are not seen any more",
    "Somebody has killed it, or it has failed; its messages are above.",
    "The server serves on. SIGHUP and `poolsrv reload` still reload.",
    "Start the server anew to have changes seen again.",
)
CONTROL_DEAF = Message(
    417,
    "no control client can be taken: %s",
    "No descriptor is left, as a rule.",
    "Commands wait; it is tried again each second. Clients of the application are not concerned.",
    "Raise the limit of open files (`LimitNOFILE=`).",
)
SUCCESSION_BEGINS = Message(
    430,
    "%s: starting the new supervisor that is to take over",
    "The signal came in, or `poolsrv upgrade`.",
    "This one serves until the workers of the new one are ready.",
    _NOTHING,
)
NO_SUCCESSION = Message(
    431,
    "%s: no upgrade: %s",
    "The signal came in while something else goes on, or where nobody can take over.",
    "None.",
    "Send it again when the server serves; in a container start a new one.",
)
SUCCESSION_WAITS = Message(
    439,
    "%s: the upgrade begins when the supervisor before has ended",
    "An upgrade was asked for soon after another, whose old workers still finish requests.",
    "The server serves. The old ones end after `--graceful-timeout` at the latest.",
    _NOTHING,
)
SUCCESSION_FAILED = Message(
    432,
    "the upgrade failed; this server goes on: %s",
    "The new supervisor ended, or was not ready within `--startup-timeout`; the text says why.",
    "All is as before. `poolsrv_upgrades_total` counts it.",
    "Mend what the text names, and upgrade again.",
)
LEFT = Message(
    433,
    "the supervisor with pid %d has taken over; what runs here is finished",
    "An upgrade.",
    "This process ends when its workers have, within `--graceful-timeout`.",
    _NOTHING,
)
TOOK_PLACE = Message(
    434,
    "this supervisor has taken the place of the one with pid %d",
    "An upgrade.",
    "Its listeners, connections and counters are here.",
    _NOTHING,
)
PREDECESSOR_ENDED = Message(
    435,
    "the supervisor that was to be followed has ended; so does this one",
    "It was killed, or stopped, during an upgrade.",
    "The server ends.",
    "Start it anew.",
)
INHERITANCE_FAILED = Message(
    436,
    "not all of the supervisor before could be taken over: %s",
    "The pid file or the control socket could not be made this server's own.",
    "It serves without.",
    "The text names it; another upgrade tries again.",
)
SUCCESSOR_ENDED = Message(
    437,
    "the supervisor that has taken over %s",
    "It was killed, or failed, while this one still finished requests.",
    "New connections are served by nobody.",
    "Start the server anew; its log says why it ended.",
)
CONNECTIONS_UNKNOWN = Message(
    438,
    "the supervisor before knows connections in another form; those that are idle are closed",
    "The two releases differ in how they describe a connection.",
    "Running requests are finished; clients of idle connections connect anew.",
    _NOTHING,
)

# 5xx: what surrounds the server.

STDOUT_FULL = Message(
    501,
    "standard output takes nothing; %s",
    "It is closed, or nobody reads it.",
    "Whoever waits for the addresses there does not see them.",
    "The addresses are in this line.",
)
RUNS_AS_ROOT = Message(
    502,
    "the application runs as root: name another user with --user",
    "The server was started as root without `--user`.",
    "A hole in the application is a hole in the machine.",
    "`--user`, or start it as another user.",
)
KEEPS = Message(
    503,
    "workers run as user %s; the supervisor keeps %s",
    "`--user`.",
    "The supervisor has dropped all other privileges.",
    _NOTHING,
)
ADMIN_MOVED = Message(
    504,
    "port %d is in use: metrics and status page are on %d; --admin chooses another",
    "Another program, or another poolsrv, listens there.",
    "Whoever scrapes the usual port reads the other server.",
    "Give each server its `--admin`.",
)
NO_ADMIN = Message(
    505,
    "there are no metrics and no status page: %s",
    "No port near the default one is free.",
    "The server serves without them.",
    "Name an address with `--admin`.",
)
NO_CONTROL = Message(
    506,
    "there is no control socket, so poolsrv status and the like do not work: %s; "
    "name a place with --control PATH",
    "No folder can be written, or another server has that socket.",
    "The server serves without it; signals work.",
    "`--control PATH`, or `--control off`.",
)
ACCESS_LOG_NOT_REOPENED = Message(
    507,
    "--access-log %s cannot be opened anew: %s",
    "The folder is gone, or may not be written by the user of the workers.",
    "Lines go on to the file that was open.",
    "Let the user of the workers write there.",
)
LINES_DROPPED = Message(
    508,
    "%d lines of this log were dropped: it was not read in time",
    "Whoever reads standard error is too slow, or hangs.",
    "The lines are lost; no request has waited for them.",
    "Look at the reader of the log.",
)
PASSED_NOT_USED = Message(
    509,
    "%s was passed by the service manager and is not used",
    "--bind names other addresses: then sockets of systemd (or of whoever sets LISTEN_FDS) are "
    "used only if it names them as well.",
    "It is closed here. Clients that connect there wait for nobody while the manager listens.",
    "Leave --bind out, or name the descriptor with it, or stop the .socket unit.",
)

# 6xx: a server in one process (--processes 0, poolsrv.running).

ONE_PROCESS_STARTS = Message(
    601,
    "poolsrv %s on Python %s starts: one process x %d threads",
    "The server was started with `--processes 0`.",
    "It opens its addresses, and has loaded the application.",
    _NOTHING,
)
IDLE_OPTIONS = Message(
    602,
    "%s: needs a supervisor, and does nothing with --processes 0",
    "An option was given that is about workers, and there are none.",
    "None.",
    "Give `--processes 1` if it matters.",
)
NOT_IN_ONE_PROCESS = Message(
    603,
    "%s: a server of one process cannot load code anew; stop it and start it again",
    "The signal came in, which reloads a server that has a supervisor, or upgrades it.",
    "None.",
    "Give `--processes 1` to have reloads.",
)
THREAD_LOST_HERE = Message(
    604,
    "a thread does not come back from its request: its client is told, and nobody replaces it",
    "It waits in C, and was not interrupted within `--interrupt-timeout`, or half a second at "
    "the end of the server; the stack says where.",
    "The client gets 504 or the cut. One thread fewer serves, in a server of one process.",
    "Give the call that waits a time limit of its own.",
)
LEFT_BEHIND = Message(
    605,
    "the server ends, and leaves threads behind: %s",
    "They have not come back from the application within `--graceful-timeout` and a second.",
    "They go on in this process until they come back; what they hold is released then.",
    "POOL604 says where they wait.",
)
ONE_PROCESS_FAILED = Message(
    606,
    "the server in this process has failed, and ends",
    "Descriptors of the server were closed by other code of the process, as a rule; the traceback "
    "says where.",
    "It serves no more.",
    "Close only what you have opened. Else report it with the traceback.",
)
NO_THREAD_IS_LEFT = Message(
    607,
    "no thread of the server has come back from the application: it ends",
    "Each hangs in a request, and was not interrupted within `--interrupt-timeout`; POOL604 says "
    "where.",
    "The process ends with status 1: whoever started it may start it anew.",
    "Give the calls that wait a time limit of their own. With `--processes 1` the worker would be "
    "replaced.",
)


def messages() -> list[Message]:
    """All of them, by code."""
    found = {value.code: value for value in globals().values() if isinstance(value, Message)}
    found |= {message.code: message for message in NOTES.values()}
    return sorted(found.values(), key=lambda message: message.code)


def reference() -> str:
    """ERRORS.md."""
    lines = [
        "# Messages",
        "",
        "Generated from the table of messages by `make docs`.",
        "",
        "Each line that the server writes for operators has a code, in the log before the text, as",
        "JSON and in `poolsrv events --json` as `code`. A code keeps its meaning; the text may",
        "become better. What the application writes has no code.",
    ]
    for message in messages():
        lines += [
            "",
            f"## {message.code}",
            "",
            f"`{message.heading}`",
            "",
            f"- Cause: {message.cause}",
            f"- Effect: {message.effect}",
            f"- Remedy: {message.remedy}",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(reference(), end="")
