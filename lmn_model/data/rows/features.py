"""The features that a run on prepared rows saves, and loading what a run on any data saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

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
    """

    features: FeatureSpec
    clock: ClassVar[None] = None
    """Prepared rows have no times."""

    def warnings(self, splits: Mapping[str, Split]) -> list[str]:
        """None: the ids do not show which of them training has seen."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for json."""
        return {"kind": KIND, "features": self.features.to_dict()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> RowFeatures:
        """Rebuild from ``to_dict``.

        Raises:
            KeyError, TypeError, ValueError: if a value is missing or damaged.
        """
        return cls(FeatureSpec.from_dict(plain["features"]))

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
