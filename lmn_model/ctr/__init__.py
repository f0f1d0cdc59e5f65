"""The CTR model: embeddings, a window model, a global memory and a tower; its settings and its training loss.

Names are imported on first use, so that the command can check settings before torch is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmn_model.lazy import import_on_use

if TYPE_CHECKING:
    from lmn_model.ctr.model import CTRModel, CTROutput
    from lmn_model.ctr.objective import Losses, training_losses, write_loss
    from lmn_model.ctr.settings import CollaborativeSettings, MemorySettings, ModelSettings

__all__ = [
    "CTRModel",
    "CTROutput",
    "CollaborativeSettings",
    "Losses",
    "MemorySettings",
    "ModelSettings",
    "training_losses",
    "write_loss",
]
_MODULES = {
    "CollaborativeSettings": "settings",
    "CTRModel": "model",
    "CTROutput": "model",
    "Losses": "objective",
    "MemorySettings": "settings",
    "ModelSettings": "settings",
    "training_losses": "objective",
    "write_loss": "objective",
}

__getattr__, __dir__ = import_on_use(__name__, _MODULES)
