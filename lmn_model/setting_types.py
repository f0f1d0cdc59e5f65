"""How settings are declared, checked and read: the machinery behind :mod:`lmn_model.training.settings`.

A setting is a field of a frozen dataclass. Its annotation is the type that TOML values are checked against and that the
text of a flag is read as: bool, int, float, str, ``Literal``, ``tuple[X, ...]`` and unions with None.
"""

from __future__ import annotations

import operator
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass, replace
from functools import cache
from numbers import Real
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from lmn_model.wording import did_you_mean

NONE = "none"
_type_hints = cache(get_type_hints)
"""Resolved once a class: every change of a setting needs them."""


class SettingsError(ValueError):
    """A setting is unknown, of the wrong type or out of range; the message names it and where it was set."""


def setting(default: Any, text: str, metavar: str | None = None, *, name: str | None = None) -> Any:
    """A dataclass field with a default and the help text of its flag.

    Args:
        default: of the field.
        text: what the setting means, in the words of ``--help``.
        metavar: what stands for the value in ``--help``; None derives it from the type.
        name: name without the section, for the flag and :func:`override`; None for that of the field. It must be unique
            across sections, where the field's need not be.
    """
    return field(default=default, metadata={"help": text, "metavar": metavar, "name": name})


class Declared(NamedTuple):
    """One setting as declared.

    Attributes:
        section: path of its section.
        field: name within the section.
        name: name without the section.
        kind: resolved type.
        default: of the field.
        help: text for ``--help``.
        metavar: what stands for the value in ``--help``.
    """

    section: tuple[str, ...]
    field: str
    name: str
    kind: Any
    default: Any
    help: str
    metavar: str

    @property
    def flag(self) -> str:
        """The flag of the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def takes_list(self) -> bool:
        """Whether the value is a list, separated by commas."""
        return any(get_origin(kind) is tuple for kind in _alternatives(self.kind))


def declared_settings(cls: Any, section: tuple[str, ...] = ()) -> Iterator[Declared]:
    """All settings in the order of their declaration, nested sections included."""
    hints = _type_hints(cls)
    for each in fields(cls):
        kind = hints[each.name]
        if is_dataclass(kind):
            yield from declared_settings(kind, (*section, each.name))
        else:
            text, metavar = each.metadata.get("help", ""), each.metadata.get("metavar") or placeholder(kind)
            yield Declared(section, each.name, _name(each), kind, _default(each), text, metavar)


def convert(value: Any, kind: Any, where: str) -> Any:
    """``value`` as ``kind``: int is taken for float, list for tuple and NumPy's numbers for Python's, nothing else.

    Raises:
        SettingsError: naming ``where``, the expected type and the value.
    """
    accepted, result = _accept(value, kind)
    if not accepted:
        raise SettingsError(f"{where} must be {describe(kind)}, got {value!r}")
    if any(not _is_utf8(each) for each in (result if isinstance(result, tuple) else (result,))):
        raise SettingsError(f"{where} must be UTF-8 text, as a settings file is, got {value!a}")
    return result


def _is_utf8(value: Any) -> bool:
    """False for a text with bytes of a file name that are no UTF-8, which Python keeps as lone surrogates."""
    return not isinstance(value, str) or not any("\ud800" <= letter <= "\udfff" for letter in value)


def parse(text: str, kind: Any, where: str) -> Any:
    """The value that ``text`` of the command line means for ``kind``; lists are separated by commas.

    Raises:
        SettingsError: as in :func:`convert`.
    """
    for candidate in _readings(text, kind):
        accepted, result = _accept(candidate, kind)
        if accepted:
            return result
    raise SettingsError(f"{where} must be {describe(kind)}, got {text!r}")


def describe(kind: Any) -> str:
    """A type in words, for messages and help."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(repr(value) for value in get_args(kind))
    if get_origin(kind) is tuple:
        return f"a list of {describe(get_args(kind)[0])}"
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(describe(each) for each in get_args(kind))
    return {int: "an integer", float: "a number", str: "a text", bool: "true or false", type(None): NONE}[kind]


def placeholder(kind: Any) -> str:
    """What stands for a value of ``kind`` in ``--help``: ``INT``, ``FLOAT``, ``TEXT``, ``{a,b}`` or ``X[,X...]``."""
    kind = _alternatives(kind)[0]
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    if get_origin(kind) is tuple:
        each = placeholder(get_args(kind)[0])
        return f"{each}[,{each}...]"
    return {int: "INT", float: "FLOAT", str: "TEXT", bool: "{true,false}"}[kind]


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """The types that a value may have, without None."""
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(each for each in get_args(kind) if each is not type(None))
    return (kind,)


def _accept(value: Any, kind: Any) -> tuple[bool, Any]:
    """Whether ``value`` is of ``kind``, and the value to store."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in args), value
    if origin in (Union, types.UnionType):
        for each in args:
            accepted, result = _accept(value, each)
            if accepted:
                return True, result
        return False, None
    if origin is tuple:
        parts = [_accept(part, args[0]) for part in value] if isinstance(value, (list, tuple)) else [(False, None)]
        return all(accepted for accepted, _ in parts), tuple(result for _, result in parts)
    if kind is int and not isinstance(value, (bool, str)):
        try:
            return True, operator.index(value)
        except TypeError:
            return False, value
    if kind is float and isinstance(value, Real) and not isinstance(value, bool):
        return True, float(value)
    if kind is bool and _is_numpy_bool(value):
        return True, bool(value)
    return type(value) is kind, value


def _readings(text: str, kind: Any) -> Iterator[Any]:
    """What ``text`` may mean, the narrowest type first: None, then the others, then a text, which anything is."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        for each in sorted(args, key=lambda each: (each is str) - (each is type(None))):
            yield from _readings(text, each)
    elif origin is tuple:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        yield [next(_readings(part, args[0]), part) for part in parts]
    elif kind is type(None):
        if text.lower() == NONE:
            yield None
    elif kind is bool:
        yield {"true": True, "false": False}.get(text.lower(), text)
    elif kind in (int, float):
        try:
            yield kind(text)
        except ValueError:
            return
    else:
        yield text


def build(cls: Any, table: Any, source: str, section: tuple[str, ...] = ()) -> Any:
    """An instance of the dataclass ``cls`` from nested tables; what they leave out keeps its default.

    Raises:
        SettingsError: naming ``source`` and the section or setting that is unknown or wrong.
    """
    where = ".".join(section)
    if not isinstance(table, Mapping):
        raise SettingsError(f"{source}: {where} must be a section, got {table!r}")
    hints = _type_hints(cls)
    known = [each.name for each in fields(cls)]
    for name in table:
        if name not in known:
            what = f"setting {name!r} in section [{where}]" if section else f"section [{name}]"
            raise SettingsError(f"{source}: there is no {what}{did_you_mean(name, known)}")
    values = {}
    for name, value in table.items():
        path = (*section, name)
        if is_dataclass(hints[name]):
            values[name] = build(hints[name], value, source, path)
        else:
            values[name] = convert(value, hints[name], f"{source}: {'.'.join(path)}")
    return _checked(lambda: cls(**values), source)


def override(instance: Any, values: Mapping[str, Any], source: str) -> Any:
    """A copy of ``instance`` and its sections with settings replaced by their names without the section.

    Raises:
        SettingsError: a value is out of range.
    """
    changes = {}
    for each in fields(instance):
        current = getattr(instance, each.name)
        if is_dataclass(current):
            changes[each.name] = override(current, values, source)
        elif (name := _name(each)) in values:
            changes[each.name] = values[name]
    return _checked(lambda: replace(instance, **changes), source)


def _checked(make: Callable[[], Any], source: str) -> Any:
    try:
        return make()
    except SettingsError:
        raise
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{source}: {error}") from error


def check_range(
    instance: Any,
    name: str,
    *,
    low: float | None = None,
    high: int | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Raise ValueError unless the field ``name`` is None or within the bounds."""
    value = getattr(instance, name)
    if value is None:
        return
    if low is not None and not value >= low:
        raise ValueError(f"{name} must be at least {low:g}, got {value!r}")
    if high is not None and value > high:
        raise ValueError(f"{name} must be at most {high}, got {value!r}")
    if above is not None and not value > above:
        raise ValueError(f"{name} must be greater than {above:g}, got {value!r}")
    if below is not None and not value < below:
        raise ValueError(f"{name} must be less than {below:g}, got {value!r}")


def take_plain(instance: Any) -> None:
    """Set the fields of a frozen dataclass to plain values: what is a number of NumPy becomes one of Python.

    Raises:
        TypeError: a field that must be a number is none.
    """
    hints = _type_hints(type(instance))
    for each in fields(instance):
        kind, value = hints[each.name], getattr(instance, each.name)
        if is_dataclass(kind) or get_origin(kind) is Literal:
            continue
        accepted, plain = _accept(value, kind)
        if not accepted:
            raise TypeError(f"{each.name} must be {describe(kind)}, got {value!r}")
        object.__setattr__(instance, each.name, plain)


def without_none(value: Any) -> Any:
    """Nested tables without the keys whose value is None, and tuples as lists: what TOML can hold."""
    if isinstance(value, dict):
        return {key: without_none(each) for key, each in value.items() if each is not None}
    return list(value) if isinstance(value, tuple) else value


def _name(each: Field[Any]) -> str:
    """The name of a setting without its section."""
    return each.metadata.get("name") or each.name


def _default(each: Field[Any]) -> Any:
    return each.default_factory() if each.default_factory is not MISSING else each.default


def _is_numpy_bool(value: Any) -> bool:
    """Whether ``value`` is a ``numpy.bool_``, without loading NumPy: who has one has loaded it."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.bool_)
