"""Window models: the interest of a user in a candidate, computed from the newest events of the user's history.

All are called alike: ``model(item, history, mask, found, found_mask)``, see :class:`WindowModel`.
:class:`WindowMatchFeatures` goes with any of them and compares ids instead of embeddings.
"""

from lmn_model.ctr.window.base import WindowModel
from lmn_model.ctr.window.din import DIN
from lmn_model.ctr.window.matches import WindowMatchFeatures
from lmn_model.ctr.window.mimn import MIMN
from lmn_model.ctr.window.pooling import MeanPooling, NoWindow
from lmn_model.ctr.window.registry import WINDOW_MODELS, window_model
from lmn_model.ctr.window.sim import SIMHard, SIMSoft

__all__ = [
    "DIN",
    "MIMN",
    "WINDOW_MODELS",
    "MeanPooling",
    "NoWindow",
    "SIMHard",
    "SIMSoft",
    "WindowMatchFeatures",
    "WindowModel",
    "window_model",
]
