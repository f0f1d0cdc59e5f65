"""MIMN: a small memory for each user, written event by event and read by the candidate.

The steps over the window are sequential, so each must be small. Rows are sorted by length, longest first. Padding is in
front, so the rows that have started at a step are always the first ones, and no step touches a row before its first
event.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmn_kernels.checks import check_int
from lmn_model.ctr.window.base import WindowModel


class MIMN(WindowModel):
    """Multi-channel user Interest Memory Network: a memory of ``slots`` interests for each row.

    At each real event x, with the controller state s, the last read r and the memory M ``[slots, E]``::

        s = GRU([x ; r], s)
        k, e, a, b = W_k s, sigmoid(W_e s), tanh(W_a s), 1 + softplus(w_b s)   (key, erase, add, sharpness)
        w = softmax_i(b cos(k, M_i))
        r = sum_i w_i M_i;  M_i = (1 - w_i e) M_i + w_i a

    After the last event the candidate c reads ``sum_i softmax_i(b_c cos(W_c c, M_i)) M_i``; without events it reads
    zeros.

    Args:
        width: E, width of an item embedding, of a slot and of the controller.
        slots: number of slots.

    Source: Pi et al. 2019, Multi-channel user Interest Memory Network, arXiv 1905.09248, section 3.3 (read, write),
    after Graves et al. 2014, Neural Turing Machines, arXiv 1410.5401, section 3. A re-implementation from the paper.
    Simplified: one head whose weights both read and write, addressing by content alone, the memory starts from a
    learned value, the candidate reads without the controller; there is no memory utilisation regularisation and no
    memory induction unit.
    """

    def __init__(self, width: int, slots: int = 4) -> None:
        super().__init__()
        width = check_int("MIMN", "width", width, low=1)
        self.slots = slots = check_int("MIMN", "slots", slots, low=1)
        self.event_gates = nn.Linear(width, 3 * width)
        self.read_gates = nn.Linear(width, 3 * width, bias=False)
        self.state_gates = nn.Linear(width, 3 * width)
        self.heads = nn.Linear(width, 3 * width + 1)  # key, erase, add, sharpness
        self.candidate_key = nn.Linear(width, width + 1)  # key, sharpness
        self.start = nn.Parameter(torch.empty(slots, width))
        self._reset_start()

    def reset_parameters(self) -> None:
        """Draw the parameters as the constructor does."""
        super().reset_parameters()
        self._reset_start()

    @torch.no_grad()
    def _reset_start(self) -> None:
        self.start.normal_().mul_(self.start.shape[1] ** -0.5)  # equal slots would stay equal

    def forward(
        self,
        item: Tensor,
        history: Tensor,
        mask: Tensor,
        found: Tensor | None = None,
        found_mask: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`WindowModel.forward`; ``[B, E]``. Padding must be in front of the events."""
        lengths = mask.sum(1)  # [B]
        order = lengths.argsort(descending=True, stable=True)
        memory = self.memory(history[order], lengths[order])  # [B, slots, E]
        key, sharpness = self.candidate_key(item[order]).tensor_split((item.shape[1],), dim=1)
        read, _ = _read(memory, key, sharpness)
        read = read.masked_fill((lengths[order] == 0).unsqueeze(1), 0)
        return torch.zeros_like(read).index_copy(0, order, read)

    def memory(self, history: Tensor, lengths: Tensor) -> Tensor:
        """The memory after the window, ``[B, slots, E]``.

        Args:
            history: ``[B, T, E]``, padding in front, rows with the most events first.
            lengths: int64 ``[B]``, real positions of each row, descending.
        """
        rows, window, width = history.shape
        # Rows that have started at each step: those with at least as many events as steps remain.
        started = torch.bincount(window - lengths, minlength=window + 1)[:window].cumsum(0).tolist()
        events = history.unbind(1)  # one gradient [B, T, E] for all steps; slices would make one for each
        memory = history.new_empty(0, self.slots, width)
        state, read = history.new_empty(0, width), history.new_empty(0, width)
        for step, count in enumerate(started):
            if count == 0:
                continue
            if (new := count - state.shape[0]) > 0:
                memory = torch.cat((memory, self.start.expand(new, -1, -1)))
                state = torch.cat((state, state.new_zeros(new, width)))
                read = torch.cat((read, read.new_zeros(new, width)))
            inputs = self.event_gates(events[step][:count]) + self.read_gates(read)  # [n, 3E]
            state = _gru(inputs, self.state_gates(state), state)
            key, erase, add, sharpness = self.heads(state).tensor_split((width, 2 * width, 3 * width), dim=1)
            read, weights = _read(memory, key, sharpness)
            weights = weights.unsqueeze(2)  # [n, slots, 1]
            kept = 1 - weights * erase.sigmoid().unsqueeze(1)  # [n, slots, E]
            memory = torch.addcmul(weights * add.tanh().unsqueeze(1), kept, memory)
        return torch.cat((memory, self.start.expand(rows - memory.shape[0], -1, -1)))


def _read(memory: Tensor, key: Tensor, sharpness: Tensor) -> tuple[Tensor, Tensor]:
    """The read-out ``[n, E]`` of a key ``[n, E]`` and the weights of the slots, ``[n, slots]``."""
    similarity = torch.bmm(memory, key.unsqueeze(2)).squeeze(2)  # [n, slots]
    lengths = torch.linalg.vector_norm(memory, dim=2) * torch.linalg.vector_norm(key, dim=1, keepdim=True)
    weights = torch.softmax((1 + F.softplus(sharpness)) * similarity / lengths.clamp_min(1e-6), dim=1)
    return torch.bmm(weights.unsqueeze(1), memory).squeeze(1), weights


def _gru(inputs: Tensor, states: Tensor, state: Tensor) -> Tensor:
    """One GRU step from the inputs of its gates ``[n, 3E]``: reset, update, candidate."""
    reset, update, fresh = inputs.chunk(3, dim=1)
    reset_state, update_state, fresh_state = states.chunk(3, dim=1)
    fresh = torch.tanh(torch.addcmul(fresh, (reset + reset_state).sigmoid(), fresh_state))
    return torch.lerp(fresh, state, (update + update_state).sigmoid())
