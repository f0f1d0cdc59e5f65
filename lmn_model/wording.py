"""Names and values in messages: quoted, on one line, with the nearest known name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

SHOWN_CHARACTERS, SHOWN_NAMES = 60, 20


def shown(value: object) -> str:
    """A value quoted for a message: one line, cut where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def shown_names(names: Sequence[str]) -> str:
    """Names quoted and separated by commas; of many only the first ones and their number."""
    text = ", ".join(map(shown, names[:SHOWN_NAMES]))
    return text if len(names) <= SHOWN_NAMES else f"{text} and {len(names) - SHOWN_NAMES} more"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'user_id'?"`` where a known name is near, else nothing."""
    folded = {each.strip().casefold(): each for each in known}
    near = difflib.get_close_matches(name.strip().casefold(), folded, n=1)
    return f"; did you mean {shown(folded[near[0]])}?" if near else ""


def reason_of(error: Exception) -> str:
    """Why reading or writing failed, on one line and without a path; OSErrors of Polars have no ``strerror``."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error.args[0]).partition(" (os error")[0] if error.args else ""
    return (text.strip().splitlines() or [type(error).__name__])[0]
