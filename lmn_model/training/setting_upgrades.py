"""Settings under the names of earlier releases, translated to today's.

================================  ==============================================================
earlier                           today
================================  ==============================================================
``interest`` in ``[model]``       ``window`` in ``[model]`` and ``kind`` in ``[model.memory]``
``query`` in ``[model.memory]``   ``kind`` in ``[model.memory]``, whose flag is ``--memory``
``window`` in ``[data]``          ``window_size`` in ``[data]``
no ``writes`` in ``[training]``   ``writes = "samples"``, of a run with a factored memory
================================  ==============================================================

``interest = "lmn"`` was the window model ``din`` with a memory, ``"lmn_only"`` a memory alone, and every other value
that window model without a memory.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

from lmn_model.setting_types import SettingsError

WITHOUT_MEMORY = ("pooling", "din", "sim_hard", "sim_soft", "mimn")
WITH_MEMORY = {"lmn": "din", "lmn_only": "none"}
"""The window model of each ``interest`` with a memory; the others were window models."""
QUERIES = ("joint", "factored")
DEFAULT_QUERY = "factored"
EARLIER = {"interest": ("window", "memory"), "query": ("memory",), "window": ("window_size",)}
"""Earlier settings, by their names without sections, and those that replaced each."""
EARLIER_PATHS = {"interest": "model.interest", "query": "model.memory.query", "window": "data.window"}
EARLIER_RULES = {"writes": "samples", "profile_levels": 0, "profile_signed": False}
"""Values of settings in a run with a factored memory that is older than they are."""
RULE_PATHS = {
    "writes": "training.writes",
    "profile_levels": "model.collaborative.profile_levels",
    "profile_signed": "model.collaborative.profile_signed",
}
MEMORY_PATH = "model.memory.kind"
PATHS = {"window": "model.window", "memory": "model.memory.kind", "window_size": "data.window_size"}


def upgrade(table: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Nested tables, as a TOML file holds them, under today's names.

    Raises:
        SettingsError: an earlier setting has an unknown value, or is there together with one that replaced it.
    """
    result = copy.deepcopy(dict(table))
    found = {}
    for path in (*EARLIER_PATHS.values(), *PATHS.values()):
        section, name = _section(result, path)
        if section is not None and name in section:
            found[path] = section[name]
    upgraded = upgrade_paths(found, source)
    for path in found.keys() - upgraded.keys():
        section, name = _section(result, path)
        if section is not None:
            del section[name]
    for path, value in upgraded.items():
        section, name = _section(result, path, create=True)
        if section is not None:
            section[name] = value
    return result


def upgrade_paths(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Settings by name and section, such as ``"model.interest"``, under today's names; raises as :func:`upgrade`."""
    earlier = {name: values[path] for name, path in EARLIER_PATHS.items() if path in values}
    earlier = {name: value for name, value in earlier.items() if _is_earlier(name, value)}
    others = {path: value for path, value in values.items() if path not in {EARLIER_PATHS[name] for name in earlier}}
    today = [name for name, path in PATHS.items() if path in others]
    return others | {PATHS[name]: value for name, value in _translated(earlier, today, DEFAULT_QUERY, source).items()}


def upgrade_run(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """All settings of a run by name and section under today's names; those that it lacks have their former rule.

    Raises:
        SettingsError: as :func:`upgrade`.
    """
    upgraded = upgrade_paths(values, source)
    if upgraded.get(MEMORY_PATH, DEFAULT_QUERY) == "factored":
        upgraded = {RULE_PATHS[name]: value for name, value in EARLIER_RULES.items()} | upgraded
    return upgraded


def upgrade_names(values: Mapping[str, Any], memory: str, source: str) -> dict[str, Any]:
    """Settings by their names without sections, as flags and studies have them, under today's names.

    Args:
        values: settings by name.
        memory: kind of memory in the settings that ``values`` change; an ``interest`` with a memory keeps it.
        source: for messages.

    Raises:
        SettingsError: as :func:`upgrade`, or ``query`` is set where there is no memory.
    """
    earlier = {name: value for name, value in values.items() if _is_earlier(name, value)}
    others = {name: value for name, value in values.items() if name not in earlier}
    return others | _translated(earlier, others, memory, source)


def _is_earlier(name: str, value: Any) -> bool:
    """Whether a setting is one of ``EARLIER``: ``window`` is today's too, but was a number."""
    return name in EARLIER and (name != "window" or type(value) is int)


def _translated(earlier: Mapping[str, Any], today: Collection[str], memory: str, source: str) -> dict[str, Any]:
    """Today's settings by name for ``earlier`` ones, which stand beside the names ``today``."""
    for name, known in (("interest", (*WITHOUT_MEMORY, *WITH_MEMORY)), ("query", QUERIES)):
        if name in earlier and earlier[name] not in known:
            raise SettingsError(f"{source}: {name} must be one of {', '.join(known)}, got {earlier[name]!r}")
    for name in earlier:
        if both := [each for each in EARLIER[name] if each in today]:
            raise SettingsError(f"{source}: {name} was replaced by {' and '.join(EARLIER[name])}; leave it out, "
                                f"{both[0]} is set too")  # fmt: skip
    found: dict[str, Any] = {}
    interest, query = earlier.get("interest"), earlier.get("query")
    if interest is not None:
        kept = DEFAULT_QUERY if memory == "none" else memory
        found["window"] = WITH_MEMORY.get(interest, interest)
        found["memory"] = (query or kept) if interest in WITH_MEMORY else "none"
    elif query is not None:
        if memory == "none":
            raise SettingsError(f"{source}: query = {query!r} has no effect for memory = 'none'")
        found["memory"] = query
    if "window" in earlier:
        found["window_size"] = earlier["window"]
    return found


def _section(table: dict[str, Any], path: str, create: bool = False) -> tuple[dict[str, Any] | None, str]:
    """The table of a setting and the setting's name; no table where there is none or a value takes its place."""
    *sections, name = path.split(".")
    section: Any = table
    for each in sections:
        section = section.setdefault(each, {}) if create else section.get(each)
        if not isinstance(section, dict):
            return None, name
    return section, name
