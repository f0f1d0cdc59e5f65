"""Which events are written to a memory after each batch: the order of all users' events on one clock.

While training replays time, a memory may hold only events before the sample that is scored, those of other users
included. So the events of all users lie in the order of time, and a batch carries a slice of them: those before the
first sample of the next batch that no earlier batch carried. One sort serves every pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Writes = Literal["calendar", "samples"]
"""``"calendar"``: events of all users, as time passes. ``"samples"``: those of a user with the user's next sample."""


@dataclass(frozen=True, eq=False)
class Calendar:
    """The events of all users in the order of time.

    Args:
        times: int64 [E], ascending.
        positions: int64 [E], where each event lies in the flat array of the histories; ascending within a moment.
    """

    times: NDArray[np.int64]
    positions: NDArray[np.int64]

    @classmethod
    def of(cls, times: NDArray[np.int64]) -> Calendar:
        """The calendar of events with these times, int64 [E]."""
        order = np.argsort(times, kind="stable")
        return cls(times[order], order)

    def before(self, moment: int) -> int:
        """How many events come strictly before a moment."""
        return int(np.searchsorted(self.times, moment))

    def through(self, moment: int) -> int:
        """How many events come before a moment or at it."""
        return int(np.searchsorted(self.times, moment, "right"))

    def stretch(self, samples: NDArray[np.int64], first: int, stop: int, after: int | None) -> NDArray[np.int64]:
        """Positions of the events that the batch of samples ``first`` to before ``stop`` carries, in the order of time.

        Args:
            samples: int64 [S], the times of the samples of a split, ascending.
            first: of the batch, in [0, S).
            stop: in (first, S].
            after: the last moment of the earlier splits, whose events were carried; None without one.

        Returns:
            int64 [P]: the events before sample ``stop`` that are not before sample ``first``. The first batch takes
            all that came since ``after``, the last one those at the last sample's moment too.
        """
        begin = 0 if after is None else self.through(after)
        low = begin if first == 0 else max(begin, self.before(samples[first]))
        high = self.through(samples[-1]) if stop == len(samples) else self.before(samples[stop])
        return self.positions[low:high]
