"""The values of a Python file that can be known without running it.

Literals, names that were given before, sums and products, and what configurations usually
ask of the machine: the number of CPUs, and variables of the environment with a default.
"""

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from poolsrv.settings.cpus import available_cpus

# Of a text or a list that is put together.
_MOST = 10_000
_LARGEST = 10**18


@dataclass(frozen=True, slots=True)
class Known:
    """`cpus`: the number of CPUs is in it. `variables` of the environment are; the value is what
    it is without them."""

    value: Any
    cpus: bool = False
    variables: tuple[str, ...] = ()


class Unknown(ValueError):
    """It depends on what the file does when it runs."""


_CPUS = frozenset(
    (
        "multiprocessing.cpu_count()",
        "cpu_count()",
        "os.cpu_count()",
        "os.process_cpu_count()",
        "len(os.sched_getaffinity(0))",
    )
)


def _text(value: Any) -> str:
    if isinstance(value, list | dict):
        raise Unknown
    return str(value)


_CALLS: Mapping[str, Callable[..., Any]] = {
    **{"int": int, "float": float, "str": _text, "bool": bool, "abs": abs, "round": round},
    **{"min": min, "max": max, "len": len, "list": list, "tuple": tuple},
    **{"math.ceil": math.ceil, "math.floor": math.floor},
}

_ENVIRONMENT = ("os.environ.get", "os.getenv", "environ.get", "getenv")


def value_of(node: ast.expr, names: Mapping[str, Known]) -> Known:
    """Raises Unknown."""
    try:
        return _value(node, names)
    except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        if isinstance(error, Unknown):
            raise
        raise Unknown from None


def _value(node: ast.expr, names: Mapping[str, Known]) -> Known:
    match node:
        case ast.Constant(value):
            return Known(value)
        case ast.Name(name) if name in names:
            return names[name]
        case ast.List(items) | ast.Tuple(items) | ast.Set(items):
            return _joined([_value(item, names) for item in items], list)
        case ast.Dict(keys, values) if None not in keys:
            told = [_value(part, names) for part in [*keys, *values] if part is not None]
            half = len(told) // 2
            return _joined(told, lambda all: dict(zip(all[:half], all[half:], strict=True)))
        case ast.UnaryOp(sign, operand):
            return _joined([_value(operand, names)], lambda all: _signed(sign, all[0]))
        case ast.BinOp(left, operator, right):
            sides = [_value(left, names), _value(right, names)]
            return _joined(sides, lambda all: _combined(operator, *all))
        case ast.BoolOp(ast.Or(), values):
            told = [_value(part, names) for part in values]
            return _joined(told, lambda all: next(filter(None, all), all[-1]))
        case ast.JoinedStr(parts):
            return _joined([_value(part, names) for part in parts], lambda all: "".join(all))
        case ast.FormattedValue(inner, -1, None):
            return _joined([_value(inner, names)], lambda all: _text(all[0]))
        case ast.Call():
            return _called(node, names)
        case ast.Subscript(ast.Attribute(ast.Name("os"), "environ"), ast.Constant(str(name))):
            return Known(None, variables=(name,))
    raise Unknown


def _joined(parts: list[Known], act: Callable[[list[Any]], Any]) -> Known:
    variables = dict.fromkeys(name for part in parts for name in part.variables)
    value = act([part.value for part in parts])
    if isinstance(value, str | list) and len(value) > _MOST:
        raise Unknown
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise Unknown
    # Lists of lists could double with each line, and no setting is one.
    if isinstance(value, list) and any(isinstance(item, list | dict) for item in value):
        raise Unknown
    if isinstance(value, dict) and any(isinstance(item, list | dict) for item in value.values()):
        raise Unknown
    return Known(value, any(part.cpus for part in parts), tuple(variables))


def _signed(operator: ast.unaryop, value: Any) -> Any:
    match operator:
        case ast.USub():
            return -value
        case ast.UAdd():
            return +value
        case ast.Not():
            return not value
    raise Unknown


def _combined(operator: ast.operator, left: Any, right: Any) -> Any:
    if isinstance(left, int | float) and isinstance(right, int | float):
        match operator:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case ast.Div():
                return left / right
            case ast.FloorDiv():
                return left // right
            case ast.Mod():
                return left % right
            case ast.Pow() if 0 <= right <= 60 and abs(left) <= 1024:
                return left**right
    elif isinstance(operator, ast.Add) and type(left) is type(right):
        return left + right
    raise Unknown


def _called(node: ast.Call, names: Mapping[str, Known]) -> Known:
    if ast.unparse(node) in _CPUS:
        return Known(available_cpus(), cpus=True)
    if node.keywords:
        raise Unknown
    function = ast.unparse(node.func)
    told = [_value(argument, names) for argument in node.args]
    if function in _ENVIRONMENT and 1 <= len(told) <= 2:
        default = told[1].value if len(told) == 2 else None
        return Known(default, variables=(str(told[0].value),))
    if function in _CALLS:
        return _joined(told, lambda all: _CALLS[function](*all))
    raise Unknown
