"""Lists of the best sub-keys of every code, made once and stored until a sub-key or a code changes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lmn_kernels import AxisTopK, axis_topk
from lmn_kernels.library import opaque
from lmn_model.modules.parametrized import current
from lmn_model.modules.product_key_memory import ProductKeyMemory
from lmn_model.modules.tensor_state import has_data, state_of


class ListStore:
    """Keeps lists for as long as the tensors that they were made of do not change. A copy starts empty.

    How a change is seen is in :mod:`.tensor_state`. Of tensors without a version, made under ``torch.inference_mode``,
    the contents are compared at each call. Of tensors without data lists are made at each call, and not kept.
    """

    def __init__(self) -> None:
        self._sources: tuple[Tensor, ...] = ()
        self._storages: tuple[torch.UntypedStorage, ...] = ()  # held, so that no other tensor takes their place
        self._state: object = None
        self._contents: tuple[Tensor, ...] = ()
        self._lists: tuple[AxisTopK, ...] = ()

    def __reduce__(self) -> tuple[type[ListStore], tuple[()]]:
        return ListStore, ()

    def lists(self, block: ProductKeyMemory, codes: Sequence[Tensor]) -> tuple[AxisTopK, ...]:
        """For each axis the ``top_k`` best sub-keys ``[V, K]`` of ``block`` for codes ``[V, C]``.

        Raises:
            RuntimeError: in ``torch.export``, which would have to make them at each call, there are none, or their
                sources have changed.
        """
        # Only the compiler calls the opaque function, for each call of one costs time.
        if torch.compiler.is_dynamo_compiling():
            return _lists_outside_a_graph(self, block, codes)
        return self._current(block, codes)

    def _current(self, block: ProductKeyMemory, codes: Sequence[Tensor]) -> tuple[AxisTopK, ...]:
        k = block.top_k
        if torch.compiler.is_exporting():  # what stands for the tensors has no state
            if not self._lists or not self._matches(self._sources, k):
                raise RuntimeError(
                    "FactoredMemoryNetwork: call the network once before torch.export, to make its lists"
                )
            return self._lists
        sources = current(block, "keys"), block.inactive, *codes
        if not all(map(has_data, sources)):
            return _make_lists(block, codes)
        if not self._matches(sources, k):
            with torch.inference_mode(False):  # or autograd could not save what is read of them
                self._lists = _make_lists(block, codes)
            self._sources, self._state = sources, (k, *map(state_of, sources))
            self._storages = tuple(tensor.untyped_storage() for tensor in sources)
            self._contents = tuple(tensor.clone() for tensor in sources if tensor.is_inference())
        return self._lists

    def _matches(self, sources: Sequence[Tensor], k: int) -> bool:
        """Whether the lists are of ``k`` entries and made of ``sources`` as they are now."""
        if self._state != (k, *map(state_of, sources)):
            return False
        unversioned = (tensor for tensor in sources if tensor.is_inference())
        return all(map(torch.equal, unversioned, self._contents))


def best_sub_keys(block: ProductKeyMemory, axis: int, codes: Tensor) -> AxisTopK:
    """The ``top_k`` best sub-keys ``[V, K]`` of one axis of ``block`` for codes ``[V, C]``."""
    keys = block.searched_keys()[0][axis]
    dtype = torch.promote_types(keys.dtype, codes.dtype)
    return axis_topk(codes.to(dtype), keys.to(dtype), block.top_k, metric=block.metric)


@torch.no_grad()
def _make_lists(block: ProductKeyMemory, codes: Sequence[Tensor]) -> tuple[AxisTopK, ...]:
    return tuple(best_sub_keys(block, axis, each) for axis, each in enumerate(codes))


@opaque  # whether the stored lists match the sub-keys is seen from outside a graph
def _lists_outside_a_graph(store: ListStore, block: ProductKeyMemory, codes: Sequence[Tensor]) -> tuple[AxisTopK, ...]:
    return store._current(block, codes)
