"""The features that a run on prepared rows saves, and loading what a run on any data saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from lmn_model.data.clocks import Clock
from lmn_model.data.events.vocabularies import Vocabularies
from lmn_model.data.features import FeatureSpec
from lmn_model.data.saved import read_saved, write_saved
from lmn_model.data.splits import Split

KIND = "rows"


@dataclass(frozen=True)
class RowFeatures:
    """Names and sizes of the features of prepared rows, whose values are ids already: there is nothing to encode.

    Args:
        features: of user, item and context; there are no numeric ones.
        clock: of the times; None if the rows have none.
    """

    features: FeatureSpec
    clock: Clock | None = None

    def warnings(self, splits: Mapping[str, Split]) -> list[str]:
        """None: the ids do not show which of them training has seen."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for json."""
        return {"kind": KIND, "features": self.features.to_dict(), "clock": self.clock}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> RowFeatures:
        """Rebuild from ``to_dict``.

        Raises:
            KeyError, TypeError, ValueError: if a value is missing or damaged.
        """
        clock = plain.get("clock")  # a run of 0.1.0 has none
        if clock not in (None, *get_args(Clock)):
            raise ValueError(f"clock must be one of {', '.join(get_args(Clock))}, got {clock!r}")
        return cls(FeatureSpec.from_dict(plain["features"]), clock)

    def save(self, folder: Path | str) -> Path:
        """Write ``vocabularies.json`` into a folder that exists, all of it or nothing, and return its path."""
        return write_saved(folder, self.to_dict())


def load_vocabularies(folder: Path | str) -> Vocabularies | RowFeatures:
    """Load what a run on events or on prepared rows saved as ``vocabularies.json``.

    Raises:
        DataError: if the file is missing, damaged or of another format.
    """

    def rebuild(plain: Mapping[str, Any]) -> Vocabularies | RowFeatures:
        return RowFeatures.from_dict(plain) if plain.get("kind") == KIND else Vocabularies.from_dict(plain)

    return read_saved(folder, rebuild)
