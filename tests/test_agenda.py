"""When something is due in which group: as if all had been asked each time."""

from hypothesis import given
from hypothesis import strategies as st

from poolsrv.supervisor.agenda import Agenda

GROUPS = 4

# What happens: a group gets another time (or none), or time passes.
changes = st.tuples(st.integers(0, GROUPS - 1), st.one_of(st.none(), st.integers(0, 20)))
histories = st.lists(st.one_of(changes, st.integers(0, 5)))


@given(histories)
def test_it_knows_what_all_groups_would_say(history: list[tuple[int, int | None] | int]) -> None:
    times: list[float | None] = [None, 3.0, None, 3.0]
    agenda = Agenda(GROUPS, lambda group: times[group])
    now = 0.0
    for happens in history:
        if isinstance(happens, int):
            now += happens
        else:
            group, at = happens
            times[group] = at
            agenda.stir(group)
        known = [at for at in times if at is not None]
        assert agenda.next() == min(known, default=None)
        due = agenda.due(now)
        assert sorted(due) == [
            group for group, at in enumerate(times) if at is not None and at <= now
        ]
        for group in due[::2]:  # the others could not be seen to, and are due again
            times[group] = None


def test_nobody_is_asked_to_whom_nothing_happens() -> None:
    asked: list[int] = []

    def ask(group: int) -> float | None:
        asked.append(group)
        return 10.0 if group == 1 else None

    agenda = Agenda(300, ask)
    assert agenda.next() == 10.0
    assert sorted(asked) == list(range(300))
    asked.clear()
    agenda.stir(7)
    assert agenda.next() == 10.0
    assert asked == [7]
    assert agenda.due(9.9) == []
    assert agenda.due(10.0) == [1]
    assert agenda.next() == 10.0
    assert asked == [7, 1]
