"""What a run on prepared rows keeps of its data, and reading what any run kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmn_model.data.events.vocabularies import Vocabularies, read_saved, write_saved
from lmn_model.data.features import FeatureSpec
from lmn_model.data.schema import DataError

KIND = "rows"
_FORMAT = 1


@dataclass(frozen=True)
class RowFeatures:
    """Names and sizes of the features of prepared rows, whose ids somebody else gave: there is nothing to encode.

    Args:
        features: of user, item and context; there are no numeric ones.
    """

    features: FeatureSpec

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for json."""
        return {"format": _FORMAT, "kind": KIND, "features": self.features.to_dict()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> RowFeatures:
        """Rebuild from ``to_dict``.

        Raises:
            DataError: if the format is another one.
            KeyError, TypeError, ValueError: if a part is missing or damaged.
        """
        if plain["format"] != _FORMAT:
            raise DataError(f"format must be {_FORMAT}, got {plain['format']!r}")
        return cls(FeatureSpec.from_dict(plain["features"]))

    def save(self, folder: Path | str) -> Path:
        """Write ``vocabularies.json`` into a folder that exists, all of it or nothing, and return its path."""
        return write_saved(folder, self.to_dict())


def load_vocabularies(folder: Path | str) -> Vocabularies | RowFeatures:
    """Read what a run on events or on prepared rows saved as ``vocabularies.json``.

    Raises:
        DataError: if the file is missing, damaged or of another format.
    """

    def rebuild(plain: Mapping[str, Any]) -> Vocabularies | RowFeatures:
        return RowFeatures.from_dict(plain) if plain.get("kind") == KIND else Vocabularies.from_dict(plain)

    return read_saved(folder, rebuild)
