"""Groups of processes: which there are, and the settings of each.

The file names them in sections [group.NAME]. All that is said of a server at the top of
the file holds for each of its groups that does not say otherwise. Groups that say where to
listen are reached there and nowhere else; the others share the server's listeners, and
mounts lead to them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

from poolsrv.errors import ConfigError
from poolsrv.settings.mounts import DEFAULT_GROUP, Mount, table, twice, with_parts
from poolsrv.settings.rows import NamedGroup, Settings


@dataclass(frozen=True, slots=True)
class Group:
    """`settings` are those of its processes: their mounts are all that its listeners lead to,
    whichever group answers. `number` is its place among all groups of the server. One that
    `owns_bind` shares its listeners with nobody. With `on_demand` there are processes, up to
    settings.processes, while somebody asks."""

    number: int
    name: str
    settings: Settings
    owns_bind: bool = False
    on_demand: bool = False

    @property
    def processes(self) -> str:
        """How many, for people."""
        return f"0..{self.settings.processes}" if self.on_demand else str(self.settings.processes)


def groups_of(settings: Settings, called: bool = False) -> tuple[Group, ...]:
    """All groups of a server; `called`: a program gives the callable that is at /.

    Raises ConfigError if mounts and groups do not fit.
    """
    if not settings.named:
        _refuse_strangers(settings.mount, [DEFAULT_GROUP])
        return (Group(0, DEFAULT_GROUP, settings),)
    given = {found.name: found for found in settings.named}
    if DEFAULT_GROUP not in given:
        plain = replace(settings, named=(), application="", mount=())
        given = {DEFAULT_GROUP: NamedGroup(DEFAULT_GROUP, plain), **given}
    _refuse_strangers(settings.mount, given)
    mounts = [*settings.mount]
    mounts += [
        Mount("/", application=found.application, group=name)
        for name, found in given.items()
        if found.application
    ]
    used = {mount.group for mount in mounts if not mount.is_part}
    if called or settings.application:
        used.add(DEFAULT_GROUP)
    for name in given:
        if name not in used and name != DEFAULT_GROUP:
            raise ConfigError(
                f"group.{name}: nothing is served by this group",
                f'write group = "{name}" into a [[mount]], or application into [group.{name}]',
            )
    names = [name for name in given if name in used] or [DEFAULT_GROUP]
    names.sort(key=lambda name: name != DEFAULT_GROUP)
    all_names = tuple(names)  # one for all, as are the mounts: there may be hundreds
    shared = frozenset(name for name in names if not given[name].owns_bind) | {DEFAULT_GROUP}

    @cache
    def mounts_of(together: frozenset[str]) -> tuple[Mount, ...]:
        found = [mount for mount in mounts if mount.group in together]
        if DEFAULT_GROUP not in together:
            return _whole(found)
        return _whole(table(settings.application, found, called))

    def mounts_for(group: str) -> tuple[Mount, ...]:
        return mounts_of(frozenset({group}) if given[group].owns_bind else shared)

    return tuple(
        Group(
            number,
            name,
            replace(
                given[name].settings,
                application="",
                mount=mounts_for(name),
                group_name=name,
                group_names=all_names,
            ),
            given[name].owns_bind,
            given[name].on_demand,
        )
        for number, name in enumerate(names)
    )


def _whole(mounts: Iterable[Mount]) -> tuple[Mount, ...]:
    found = with_parts(tuple(mounts))
    if again := twice(found):
        raise ConfigError(
            f"mount: there are two applications at {again.host}{again.path}",
            "leave one of them out, or give its group a bind of its own",
        )
    return found


def _refuse_strangers(mounts: Iterable[Mount], names: Iterable[str]) -> None:
    """Raises ConfigError for a mount in a group that there is not."""
    known = list(names)
    for mount in mounts:
        if mount.group not in known:
            raise ConfigError(
                f"mount: {mount.host}{mount.path}: there is no group {mount.group}",
                f"write a section [group.{mount.group}], or name one of {', '.join(known)}",
            )
