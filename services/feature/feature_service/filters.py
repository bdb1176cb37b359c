"""Typed conditions on properties, with real nulls.

A missing property is null, never 0 or empty. Values of different types are unequal and in no order.
"""

import operator
from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from google.protobuf.struct_pb2 import Struct, Value


class Other(Enum):
    """A list or an object: it is there, and equals nothing."""

    OTHER = "other"


Scalar = None | bool | float | str
Property = Scalar | Other
Condition = Callable[[Property], bool]


class Filter(NamedTuple):
    """One condition: `holds` says whether it is true of the value of `property`."""

    property: str
    holds: Condition


def value_of(value: Value) -> Property:
    """A protobuf value as a Python one."""
    match value.WhichOneof("kind"):
        case "number_value":
            return value.number_value
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value" | "list_value":
            return Other.OTHER
        case _:
            return None


def property_of(properties: Struct, path: str) -> Property:
    """The property of that name, or the one at that dotted path into nested objects, whose keys may have dots too."""
    fields = properties.fields
    if path in fields:
        return value_of(fields[path])
    head, dot, rest = path.partition(".")
    while dot:
        if head in fields and fields[head].HasField("struct_value"):
            found = property_of(fields[head].struct_value, rest)
            if found is not None:
                return found
        more, dot, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


def equal(expected: Scalar) -> Condition:
    """The same type and the same value."""
    kind = type(expected)
    return lambda value: type(value) is kind and value == expected


def not_equal(expected: Scalar) -> Condition:
    """Not `equal`."""
    same = equal(expected)
    return lambda value: not same(value)


def one_of(expected: Sequence[Scalar]) -> Condition:
    """`equal` to one of them."""
    # True and 1.0 are one key of a set: the type tells them apart.
    keys = {(type(e), e) for e in expected}
    return lambda value: (type(value), value) in keys


def exists(value: Property) -> bool:
    """There, and not null."""
    return value is not None


def prefix(expected: str) -> Condition:
    """A string that begins so."""
    return lambda value: isinstance(value, str) and value.startswith(expected)


def _ordered(compare: Callable[[float | str, float | str], bool]) -> Callable[[float | str], Condition]:
    def condition(expected: float | str) -> Condition:
        kind = type(expected)
        return lambda value: type(value) is kind and compare(value, expected)

    return condition


less = _ordered(operator.lt)
less_or_equal = _ordered(operator.le)
greater = _ordered(operator.gt)
greater_or_equal = _ordered(operator.ge)
