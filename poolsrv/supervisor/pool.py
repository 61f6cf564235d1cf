"""Which processes of a group exist, and what should happen to them next.

Supervisor only. Knows no sockets, no processes and no clock: callers pass
`now` (monotonic seconds) and carry out the actions it returns, in order. What
cannot happen in the present state raises Unfit and changes nothing.

Long, because it is one machine: what happens to a template concerns slots,
what happens to a slot concerns generations. The parts are named.
"""

from collections.abc import Iterable

from poolsrv.between.lifecycle import Event, ServerState, State, Unfit
from poolsrv.supervisor.actions import (
    Bury,
    Disable,
    Drain,
    Enable,
    GroupAction,
    Kill,
    KillTemplate,
    LastCall,
    QuitTemplate,
    Reason,
    ReloadFailed,
    Spawn,
    StartTemplate,
    TookOver,
)
from poolsrv.supervisor.generations import (
    FIRST_PAUSE,
    KILL_AGAIN,
    LAST_WORDS,
    PAUSE,
    Generation,
    Generations,
    Slot,
)

# A template forks in milliseconds, in half a second with gigabytes loaded. One that
# has not answered an order by then is stuck, or stopped.
FORK_TIMEOUT = 10.0

# So long before a graceful stop is over, what waits for a thread is refused: it is
# enough for workers to hand it back, and for clients to read their answers.
LAST_CALL = 1.0


class Pool:
    """The slots and the templates of a group; `wanted` workers serve.

    While a generation comes it has as many slots as the one that serves: give
    twice as many as `wanted` will ever be. `first` is the number of the first generation.
    `at_once` is how many workers load while others serve, 0 for all: who serves needs
    processors too. `others_serve`: so it is from the start, until that is set to False.
    `state` is the server's, as it has told by `serve` and `drain`.

    With `on_demand` no worker is wanted, and there is no template, until `wake`; `press` has
    one more worker started, `rest` ends them all. There are `processes` of them at most.
    """

    def __init__(
        self,
        processes: int,
        slots: int,
        *,
        startup_timeout: float,
        graceful_timeout: float,
        first: int = 1,
        at_once: int = 0,
        others_serve: bool = False,
        on_demand: bool = False,
        wanted: int | None = None,
    ) -> None:
        self.slots = [Slot() for _ in range(slots)]
        self.generations = Generations(first)
        self.state = ServerState.STARTING
        self.on_demand = on_demand
        self.wanted = (0 if on_demand else processes) if wanted is None else wanted
        self._most = processes
        self.failure = ""  # why the server cannot start
        self.others_serve = others_serve
        self.startup_timeout = startup_timeout
        self._graceful_timeout = graceful_timeout
        self._end: float | None = None  # of its drain
        self._last_call: float | None = None
        self._recycling: list[int] = []  # slots, in the order in which they are replaced
        self._replaced: int | None = None  # the one of them whose replacement starts or is there
        self._at_once = at_once

    # What happens to the group

    def start(self, now: float) -> list[GroupAction]:
        """Nothing runs yet: begin."""
        if self.is_asleep:
            return []
        return self._start_template(self.generations.serving, now)

    def serve(self, now: float) -> list[GroupAction]:
        """All groups are settled: the server serves."""
        self.state = ServerState.SERVING
        self.others_serve = False
        return [*self.reload_again(now), *self._settle(now)]

    def reload(self, now: float) -> list[GroupAction]:
        """Load the application anew. While it is, once more means one more after that."""
        if self.state is ServerState.DRAINING:
            return []
        if self.state is ServerState.STARTING or self.generations.coming is not None:
            self.generations.again = True
            return []
        if self.is_asleep:
            return [TookOver(self.generations.renew().number)]
        return self._start_template(self.generations.begin(), now)

    def reload_again(self, now: float) -> list[GroupAction]:
        """If a reload was asked for while there could be none."""
        again, self.generations.again = self.generations.again, False
        return self.reload(now) if again else []

    # What happens to a group on demand

    @property
    def is_asleep(self) -> bool:
        """Nobody is wanted until a request comes."""
        return self.on_demand and self.wanted == 0

    def wake(self, now: float) -> list[GroupAction]:
        """A request waits, and nobody is there."""
        if not self.is_asleep or self.state is not ServerState.SERVING:
            return []
        self.wanted = 1
        return self._start_template(self.generations.serving, now)

    def press(self, now: float) -> list[GroupAction]:
        """Requests wait although all serve: one worker more, if there may be."""
        if not self.on_demand or not 0 < self.wanted < self._most or not self.is_settled():
            return []
        self.wanted += 1
        return self._settle(now)

    def rest(self, now: float) -> list[GroupAction]:
        """No request has come for long: all end, unless a reload is under way."""
        if self.is_asleep or not self.on_demand or self.generations.coming is not None:
            return []
        if self.state is not ServerState.SERVING:
            return []
        old = self.generations.rest()
        self.wanted = 0
        self._recycling.clear()
        self._replaced = None
        actions: list[GroupAction] = []
        for slot, place in enumerate(self.slots):
            if place.generation == old.number:
                actions += self._dismiss(slot, now)
        return actions + self._quit_template(old, now)

    # What people order

    def set_times(self, startup_timeout: float, graceful_timeout: float) -> None:
        """The limits that a reload has brought, for what begins from now on."""
        self.startup_timeout = startup_timeout
        self._graceful_timeout = graceful_timeout

    def scale(self, processes: int, now: float) -> list[GroupAction]:
        """So many workers from now on."""
        if self.on_demand:
            raise Unfit(
                "this group has as many workers as requests need; write processes = N into its "
                "section for a fixed number"
            )
        if not 1 <= processes <= len(self.slots) // 2:
            raise Unfit(
                f"the number of workers is 1 to {len(self.slots) // 2}: start the server with "
                "a higher --max-processes for more"
            )
        self.wanted = processes
        return self._settle(now)

    def recycle(
        self, slots: Iterable[int], now: float, reason: Reason = Reason.RECYCLE
    ) -> list[GroupAction]:
        """Replace the workers in these slots, one after another."""
        for slot in slots:
            place = self.slots[slot]
            if place.state is State.READY and self._serves(place) and not self.is_recycling(slot):
                self._recycling.append(slot)
                place.ending = reason if reason is not Reason.RECYCLE else None
        return self._settle(now)

    def is_recycling(self, slot: int) -> bool:
        return slot == self._replaced or slot in self._recycling

    def is_settled(self) -> bool:
        """As many workers serve as are wanted, and all of them are ready."""
        kept = self._keepers(self.generations.serving)
        return len(kept) == self.wanted and self._all(kept, State.READY)

    def obstacle(self) -> str:
        """What keeps the generation that serves from becoming whole, or nothing."""
        if self.generations.serving.template.state is State.WAITING:
            return "the template has ended, and is started again after a pause"
        for slot, place in enumerate(self.slots):
            if place.state is State.WAITING and self._serves(place):
                return f"a worker cannot be started in slot {slot}; it is tried again after a pause"
        return ""

    def kill(self, slot: int, why: str, reason: Reason, now: float) -> list[GroupAction]:
        """End a worker now; another follows it."""
        self.slots[slot].ending = reason
        return self._kill([slot], why, now)

    def drain(self, now: float) -> list[GroupAction]:
        """The server ends, or has left its place. Nothing more is started, and those who
        never served end."""
        self.state = ServerState.DRAINING
        self._end = now + self._graceful_timeout
        actions: list[GroupAction] = []
        if self.generations.coming is not None:
            self.generations.abandon()
        for slot, place in enumerate(self.slots):
            # Those who never served have nothing to finish.
            if place.state in (State.WAITING, State.STARTING, State.STANDBY):
                actions += self._dismiss(slot, now)
        for generation in self.generations.all():
            actions += self._quit_template(generation, now)
        return actions

    def expect_last_call(self, now: float) -> list[GroupAction]:
        """What waits for a thread until shortly before the end of the drain is refused then;
        at once if nobody is left who could serve it."""
        grace = self._graceful_timeout
        self._last_call = now + grace - min(LAST_CALL, grace / 4)
        return self._call_last()

    def _call_last(self) -> list[GroupAction]:
        """The last call, if one is expected and there is nothing to wait for."""
        if self._last_call is None or any(place.state is State.READY for place in self.slots):
            return []
        self._last_call = None
        return [LastCall()]

    def kill_all(self, why: str, now: float) -> list[GroupAction]:
        """End all workers now."""
        return self._kill(self._alive(), why, now)

    def queue_empty(self, now: float) -> list[GroupAction]:
        """The server drains, and no connection waits for a worker."""
        if self.state is not ServerState.DRAINING:
            raise Unfit("the server does not drain")
        return self._dismiss_ready(now)

    @property
    def is_empty(self) -> bool:
        """It has no worker."""
        return not self._alive()

    def _dismiss_ready(self, now: float) -> list[GroupAction]:
        ready = [slot for slot, place in enumerate(self.slots) if place.state is State.READY]
        return [action for slot in ready for action in self._dismiss(slot, now)]

    # What happens to templates

    def loaded(self, generation: int, now: float) -> list[GroupAction]:
        """The template can fork."""
        template = self.generations.find(generation).template
        template.move(Event.READY)
        return self._settle(now)

    def load_failed(self, generation: int, text: str, now: float) -> list[GroupAction]:
        """The template cannot load the application; its end will follow."""
        return self._cannot_load(self.generations.find(generation), text, now)

    def template_exited(self, generation: int, text: str, now: float) -> list[GroupAction]:
        """It is gone, or could not be started; `text` says so. Its workers go on."""
        found = self.generations.find(generation)
        template = found.template
        served = template.state is State.READY
        template.move(Event.EXITED)
        for place in self.slots:
            # What it was told to fork and has not, it never will.
            if place.alive and not place.born and place.generation == generation:
                place.move(Event.EXITED)
        if self.state is ServerState.DRAINING:
            return []
        if found is self.generations.coming:
            return self._fail(text, now)
        if found is not self.generations.serving:
            del self.generations.leaving[generation]
            return self._settle(now)
        if self.state is ServerState.STARTING:
            return self._give_up(text)
        wait = template.put_off(now - template.started if served else 0.0)
        template.move(Event.BACK_OFF)
        template.deadline = now + max(PAUSE, wait)
        return []

    def template_not_started(self, generation: int, text: str, now: float) -> list[GroupAction]:
        """The supervisor could not fork it."""
        found = self.generations.find(generation)
        if found is not self.generations.serving or self.state is not ServerState.STARTING:
            return self.template_exited(generation, text, now)
        found.template.move(Event.EXITED)
        if now - found.template.started >= self.startup_timeout:
            return self._give_up(text)
        found.template.move(Event.BACK_OFF)
        found.template.deadline = now + PAUSE
        return []

    def spawned(self, slot: int, generation: int, now: float) -> list[GroupAction]:
        """The template has started the worker."""
        place = self._ordered(slot, generation)
        place.born = True
        place.tried_since = None
        if place.state is State.STARTING:
            place.deadline = now + self.startup_timeout
            return []
        return [Kill(slot, "")]

    def spawn_failed(self, slot: int, generation: int, text: str, now: float) -> list[GroupAction]:
        """The template could not fork: for want of memory or processes, as a rule."""
        place = self._ordered(slot, generation)
        wanted = place.state is State.STARTING
        place.move(Event.EXITED)
        if self.state is ServerState.DRAINING or not wanted:
            return self._settle(now)
        if place.tried_since is None:
            place.tried_since = now
        text = f"worker {slot} cannot be started: {text}"
        if now - place.tried_since >= self.startup_timeout:
            if generation != self.generations.serving.number:
                return self._fail(text, now)
            if self.state is ServerState.STARTING:
                return self._give_up(text)
        place.move(Event.BACK_OFF)
        place.deadline = now + PAUSE
        return []

    # What happens to workers

    def ready(self, slot: int, now: float) -> list[GroupAction]:
        """The worker has loaded the application."""
        place = self.slots[slot]
        if not place.born:
            raise Unfit(f"nobody was started in slot {slot}")
        coming = self.generations.coming
        comes = coming is not None and coming.number == place.generation
        place.move(Event.STAND_BY if comes else Event.READY)
        if place.state not in (State.READY, State.STANDBY):
            return []
        place.ready_at = now
        actions: list[GroupAction] = [Enable(slot)] if place.state is State.READY else []
        return actions + self._settle(now)

    def worker_failed(self, slot: int, text: str, now: float) -> list[GroupAction]:
        """The worker cannot load the application; its end will follow."""
        place = self.slots[slot]
        if place.state is not State.STARTING or not place.born:
            raise Unfit(f"the worker in slot {slot} does not load: it is {place.state.name}")
        return self._cannot_load(self.generations.find(place.generation), text, now)

    def exited(self, slot: int, reason: Reason, now: float, *, answered: bool) -> list[GroupAction]:
        """The worker's process has ended. `answered`: its application had answered a request."""
        place = self.slots[slot]
        was, served = place.state, place.ready_at is not None
        place.move(Event.EXITED)
        if slot == self._replaced:
            self._replaced = None
        if slot in self._recycling:
            self._recycling.remove(slot)
        told = was in (State.DRAINING, State.KILLED)
        if not served:
            reason = Reason.STARTUP
        counted: Reason | None = reason
        if place.ending is not None:
            counted, place.ending = place.ending, None
        elif told and not (self._failed(place, was) and self._goes_on):
            counted = None
        actions: list[GroupAction] = [Disable(slot), Bury(slot, counted)]
        if self.state is ServerState.DRAINING:
            return actions if was is State.DRAINING else [*actions, *self._call_last()]
        coming = self.generations.coming
        if coming is not None and place.generation == coming.number and not told:
            text = f"worker {slot} ended while its generation started; its messages are above"
            return actions + self._fail(text, now)
        if not self._serves(place):
            return actions + self._settle(now)
        if self.state is ServerState.STARTING and was is State.STARTING:
            text = f"worker {slot} ended while it loaded the application; its messages are above"
            return actions + self._give_up(text)
        wait = self._put_off(place, answered or place.dismissed or was is State.DRAINING, now)
        if len(self._keepers(self.generations.serving)) < self.wanted:
            actions += self._replace(slot, wait, now)
        return actions + self._settle(now)

    def _failed(self, place: Slot, was: State) -> bool:
        """It was wanted, and was killed for what it did not do in time."""
        return was is State.KILLED and self._serves(place) and not place.dismissed

    # Time

    def deadline(self) -> float | None:
        """When `tick` should be called next."""
        lives = [*self.slots, *(found.template for found in self.generations.all())]
        times = [life.deadline for life in lives if life.deadline is not None]
        times += [at for at in (self._end, self._last_call) if at is not None]
        return min(times, default=None)

    def tick(self, now: float) -> list[GroupAction]:
        """Some deadline may have passed."""
        actions: list[GroupAction] = []
        if self._last_call is not None and self._last_call <= now:
            self._last_call = None
            actions.append(LastCall())
        if self._end is not None and self._end <= now:
            self._end = None
            actions += self._kill(self._alive(), self._unfinished(), now)
        for slot, place in enumerate(self.slots):
            if place.deadline is not None and place.deadline <= now:
                place.deadline = None
                actions += self._worker_due(slot, now)
        for generation in self.generations.all():
            template = generation.template
            if template.deadline is not None and template.deadline <= now:
                template.deadline = None
                actions += self._template_due(generation, now)
        return actions

    def _worker_due(self, slot: int, now: float) -> list[GroupAction]:
        place = self.slots[slot]
        if place.state is State.WAITING:
            return self._spawn_or_wait(slot, now)
        if not place.born:
            place.deadline = now + FORK_TIMEOUT
            why = f"did not fork within {FORK_TIMEOUT:g} s"
            return self._kill_template(self.generations.find(place.generation), why, now)
        if place.state is State.KILLED:
            return self._kill_now(slot, "", now)
        if place.state is State.DRAINING:
            return self._kill([slot], self._unfinished(), now)
        why = f"was not ready within {self.startup_timeout:g} s"
        text = f"worker {slot} {why}; give it more with --startup-timeout"
        if not self._serves(place):
            return self._fail(text, now)
        if self.state is ServerState.STARTING:
            return self._give_up(text)
        return self._kill([slot], why, now)

    def _template_due(self, generation: Generation, now: float) -> list[GroupAction]:
        template = generation.template
        if template.state is State.WAITING:
            return self._start_template(generation, now)
        if template.state is State.KILLED:
            return self._kill_template(generation, "", now)
        if template.state is State.DRAINING:
            return self._kill_template(generation, "did not end after its workers", now)
        why = f"did not load the application within {self.startup_timeout:g} s"
        text = f"the template {why}; give it more with --startup-timeout"
        if generation is self.generations.coming:
            return self._fail(text, now)
        if self.state is ServerState.STARTING:
            return self._give_up(text)
        return self._kill_template(generation, why, now)

    # Inside: workers

    def _serves(self, place: Slot) -> bool:
        return place.generation == self.generations.serving.number

    @property
    def _goes_on(self) -> bool:
        return self.state is not ServerState.DRAINING

    def _alive(self) -> list[int]:
        return [slot for slot, place in enumerate(self.slots) if place.alive]

    def _unfinished(self) -> str:
        return f"did not finish within {self._graceful_timeout:g} s"

    def _ordered(self, slot: int, generation: int) -> Slot:
        """The place in which a worker of that generation was ordered, and not heard of yet."""
        if not 0 <= slot < len(self.slots):
            raise Unfit(f"there is no slot {slot}")
        place = self.slots[slot]
        if not place.alive or place.born or place.generation != generation:
            raise Unfit(f"no worker of generation {generation} was ordered in slot {slot}")
        return place

    def _keepers(self, generation: Generation) -> list[int]:
        """The slots of those who serve, or will: not of one whose replacement is on its way."""
        kept = (State.STARTING, State.STANDBY, State.READY, State.WAITING)
        return [
            slot
            for slot, place in enumerate(self.slots)
            if place.state in kept
            and place.generation == generation.number
            and slot != self._replaced
        ]

    def _spawn(self, slot: int, generation: Generation, now: float) -> list[GroupAction]:
        place = self.slots[slot]
        if place.generation != generation.number:
            place.deaths = 0
            place.tried_since = None
        place.move(Event.SPAWN)
        place.generation = generation.number
        place.born = place.dismissed = False
        place.ready_at = None
        place.ending = None
        place.started = now
        place.deadline = now + FORK_TIMEOUT
        return [Spawn(slot, generation.number)]

    def _spawn_or_wait(self, slot: int, now: float) -> list[GroupAction]:
        """A pause is over. Without a template the slot waits for that, and for no time."""
        place = self.slots[slot]
        generation = self.generations.find(place.generation)
        if generation.template.state is State.READY:
            return self._spawn(slot, generation, now)
        place.move(Event.DRAIN)
        return []

    def _put_off(self, place: Slot, proven: bool, now: float) -> float:
        """How long the next worker in that place waits.

        An application that has answered can answer again: while it does not, clients wait,
        and whatever ended it, a pause would not keep that away. What clients can have
        started by what kills a worker is bounded: in each slot one after another, and not
        more often than FIRST_PAUSE. Who is ready and answers nothing is judged by the time.
        """
        if proven:
            place.deaths = 0
            return max(0.0, place.started + FIRST_PAUSE - now)
        return place.put_off(0.0 if place.ready_at is None else now - place.ready_at)

    def _replace(self, slot: int, wait: float, now: float) -> list[GroupAction]:
        place = self.slots[slot]
        if wait > 0.0:
            place.move(Event.BACK_OFF)
            place.deadline = now + wait
            return []
        if self.generations.serving.template.state is State.READY:
            return self._spawn(slot, self.generations.serving, now)
        return []  # it is filled when the template is there

    def _kill(self, slots: Iterable[int], why: str, now: float) -> list[GroupAction]:
        return [
            action
            for slot in slots
            if self.slots[slot].state is not State.KILLED
            for action in self._kill_now(slot, why, now)
        ]

    def _kill_now(self, slot: int, why: str, now: float) -> list[GroupAction]:
        place = self.slots[slot]
        place.move(Event.KILL)
        if not place.born:  # it is killed as soon as it is known
            place.deadline = now + FORK_TIMEOUT
            return []
        place.deadline = now + KILL_AGAIN
        return [Disable(slot), Kill(slot, why)]

    def _dismiss(self, slot: int, now: float) -> list[GroupAction]:
        """This worker is not wanted any more."""
        place = self.slots[slot]
        if place.state is State.READY:
            place.move(Event.DRAIN)
            place.deadline = now + self._graceful_timeout
            return [Disable(slot), Drain(slot)]
        if place.state is State.WAITING:
            place.move(Event.DRAIN)
            return []
        if place.state in (State.STARTING, State.STANDBY):
            place.dismissed = True
            return self._kill([slot], "", now)
        return []

    # Inside: generations

    def _settle(self, now: float) -> list[GroupAction]:
        """Bring about what is wanted, as far as it can be by now."""
        if self.state is ServerState.DRAINING:
            return []
        serving, coming = self.generations.serving, self.generations.coming
        actions = self._fill(serving, now)
        if self.state is ServerState.STARTING:
            return actions
        if coming is not None:
            actions += self._recycled(now) + self._fill(coming, now)
            kept = self._keepers(coming)
            if len(kept) == self.wanted and self._all(kept, State.STANDBY):
                actions += self._take_over(kept, now)
        else:
            actions += self._recycle_next(now)
        return actions

    def _all(self, slots: list[int], state: State) -> bool:
        return all(self.slots[slot].state is state for slot in slots)

    def _fill(self, generation: Generation, now: float) -> list[GroupAction]:
        actions: list[GroupAction] = []
        kept = self._keepers(generation)
        empty = [slot for slot, place in enumerate(self.slots) if place.state is State.EMPTY]
        if generation.template.state is State.READY:
            for slot in empty[: self._starts(generation, kept)]:
                actions += self._spawn(slot, generation, now)
        # Those who serve stay longest, and the first slots are filled.
        kept.sort(key=lambda slot: (self.slots[slot].state is State.READY, -slot))
        for slot in kept[: max(0, len(kept) - self.wanted)]:
            actions += self._dismiss(slot, now)
        return actions

    def _starts(self, generation: Generation, kept: list[int]) -> int:
        """How many more of its workers may be started now."""
        missing = max(0, self.wanted - len(kept))
        others_serve = self.others_serve or generation is self.generations.coming
        if not self._at_once or not others_serve:
            return missing
        starting = sum(self.slots[slot].state is State.STARTING for slot in kept)
        return min(missing, max(0, self._at_once - starting))

    def _recycle_next(self, now: float) -> list[GroupAction]:
        """One at a time, and the next when the last one has ended."""
        actions = self._recycled(now)
        while self._replaced is None and self._recycling:
            slot = self._recycling.pop(0)
            if self.slots[slot].state is State.READY:
                self._replaced = slot
                actions += self._fill(self.generations.serving, now)
        return actions

    def _recycled(self, now: float) -> list[GroupAction]:
        """The worker whose replacement is ready, if there is one, may go."""
        kept = self._keepers(self.generations.serving)
        if self._replaced is None or self.slots[self._replaced].state is not State.READY:
            return []
        if len(kept) < self.wanted or not self._all(kept, State.READY):
            return []
        place = self.slots[self._replaced]
        place.ending = Reason.RECYCLE if place.ending is None else place.ending
        return self._dismiss(self._replaced, now)

    def _take_over(self, slots: list[int], now: float) -> list[GroupAction]:
        old = self.generations.take_over()
        actions: list[GroupAction] = []
        for slot in slots:
            self.slots[slot].move(Event.READY)
            actions.append(Enable(slot))
        for slot, place in enumerate(self.slots):
            if place.generation == old.number:
                actions += self._dismiss(slot, now)
        self._recycling.clear()
        self._replaced = None
        actions += self._quit_template(old, now)
        actions.append(TookOver(self.generations.serving.number))
        return actions + self.reload_again(now)

    def _fail(self, text: str, now: float) -> list[GroupAction]:
        """The generation that comes will not serve."""
        failed = self.generations.abandon()
        actions: list[GroupAction] = [ReloadFailed(failed.number, text)]
        for slot, place in enumerate(self.slots):
            if place.generation == failed.number:
                actions += self._dismiss(slot, now)
        actions += self._quit_template(failed, now)
        return actions + self.reload_again(now) + self._settle(now)

    def _cannot_load(self, generation: Generation, text: str, now: float) -> list[GroupAction]:
        if generation is self.generations.coming:
            return self._fail(text, now)
        if generation is self.generations.serving and self.state is ServerState.STARTING:
            return self._give_up(text)
        return []

    def _start_template(self, generation: Generation, now: float) -> list[GroupAction]:
        generation.template.move(Event.SPAWN)
        generation.template.started = now
        generation.template.deadline = now + self.startup_timeout
        return [StartTemplate(generation.number)]

    def _quit_template(self, generation: Generation, now: float) -> list[GroupAction]:
        template = generation.template
        if template.state is State.WAITING:
            template.move(Event.DRAIN)
        if not template.alive:
            self.generations.leaving.pop(generation.number, None)
            return []
        if template.state in (State.DRAINING, State.KILLED):
            return []
        template.move(Event.DRAIN)
        template.deadline = now + self._graceful_timeout + LAST_WORDS
        return [QuitTemplate(generation.number)]

    def _kill_template(self, generation: Generation, why: str, now: float) -> list[GroupAction]:
        generation.template.move(Event.KILL)
        generation.template.deadline = now + KILL_AGAIN
        return [KillTemplate(generation.number, why)]

    # Inside: the end

    def _give_up(self, text: str) -> list[GroupAction]:
        """The server cannot start, and says why as it ends."""
        self.failure = self.failure or text
        return []
