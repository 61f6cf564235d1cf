"""Variables of the environment that an application finds set.

Knows no single option and no source of values.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from poolsrv.settings.addresses import BadValue
from poolsrv.settings.kinds import Kind


@dataclass(frozen=True, slots=True)
class Variable:
    """One of the environment."""

    name: str
    value: str

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


# Python has read these when it comes to our settings; PYTHONPATH has an option of its own.
_PYTHON_READS = re.compile(r"PYTHON(?!BREAKPOINT$)[A-Z0-9]+")


def variables() -> Kind:
    """Texts `NAME=VALUE`, or a table of them."""

    def parse(text: str) -> Variable:
        name, equals, value = text.partition("=")
        if not equals or not name or "\0" in text:
            raise ValueError
        if name == "PYTHONPATH":
            raise BadValue("folders to import from are given with pythonpath")
        if _PYTHON_READS.fullmatch(name):
            raise BadValue(
                f"Python reads {name} when it starts, which it has: set it where poolsrv is started"
            )
        return Variable(name, value)

    def entries(table: Mapping[str, Any]) -> list[object]:
        for name, value in table.items():
            if not isinstance(value, str):
                raise BadValue(f"{name}: write the value as text, in quotes")
        return [f"{name}={value}" for name, value in table.items()]

    return Kind(
        parse,
        "NAME=VALUE",
        "NAME=VALUE",
        lambda given: ", ".join(map(str, given)),
        separator="\n",
        examples="API_MODE=production",
        entries=entries,
    )
