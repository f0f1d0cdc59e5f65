"""What a history says about a candidate: the interest parts, all called alike.

``part(item, history, mask, found, found_mask)`` takes the candidate ``item [B, E]``, the window ``history [B, T, E]``
with ``mask [B, T]`` and, for a part that ``searches``, the events ``found [B, S, E]`` with ``found_mask [B, S]`` that a
search over the whole history gave. It returns ``[B, part.interests * E]``. Padding has no say; an empty history gives
zeros. ``WindowMatches`` stands beside any of them and looks at ids.
"""

from lmn_model.ctr.window.din import DeepInterestAttention
from lmn_model.ctr.window.matches import WindowMatches
from lmn_model.ctr.window.mimn import MultiInterestMemory
from lmn_model.ctr.window.pooling import MeanPooling, NoInterest
from lmn_model.ctr.window.registry import INTERESTS, InterestPart, interest_part
from lmn_model.ctr.window.sim import HardSearch, SoftSearch

__all__ = [
    "INTERESTS",
    "DeepInterestAttention",
    "HardSearch",
    "InterestPart",
    "MeanPooling",
    "MultiInterestMemory",
    "NoInterest",
    "SoftSearch",
    "WindowMatches",
    "interest_part",
]
