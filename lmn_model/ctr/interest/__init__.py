"""What a history says about a candidate: the interest parts, all called alike.

``part(item, history, mask, found, found_mask)`` takes the candidate ``item [B, E]``, the window ``history [B, T, E]``
with ``mask [B, T]`` and, for a part that ``searches``, the events ``found [B, S, E]`` with ``found_mask [B, S]`` that a
search over the whole history gave. It returns ``[B, part.interests * E]``. Padding has no say; an empty history gives
zeros. ``WindowMatches`` stands beside any of them and looks at ids.
"""

from lmn_model.ctr.interest.by_name import INTERESTS, InterestPart, interest_part
from lmn_model.ctr.interest.din import DeepInterestAttention
from lmn_model.ctr.interest.mimn import MultiInterestMemory
from lmn_model.ctr.interest.pooling import MeanPooling, NoInterest
from lmn_model.ctr.interest.sim import HardSearch, SoftSearch
from lmn_model.ctr.interest.window_matches import WindowMatches

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
