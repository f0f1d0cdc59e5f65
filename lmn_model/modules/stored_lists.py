"""Lists of the best sub-keys of every id, made once and stored until a sub-key or a code changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lmn_kernels import AxisTopK
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

    def get(self, sources: Sequence[Tensor], k: int, make: Callable[[], Sequence[AxisTopK]]) -> tuple[AxisTopK, ...]:
        """The lists of ``k`` entries that ``make`` made of the tensors ``sources``, made anew if need be.

        Raises:
            RuntimeError: in ``torch.export`` there are none, or their sources have changed.
        """
        if torch.compiler.is_exporting():  # what stands for the tensors has no state
            if not self._lists or not self._matches(self._sources, k):
                raise RuntimeError(
                    "FactoredMemoryNetwork: call the network once before torch.export, to make its lists"
                )
            return self._lists
        if not all(map(has_data, sources)):
            return tuple(make())
        if not self._matches(sources, k):
            with torch.inference_mode(False):  # or autograd could not save what is read of them
                self._lists = tuple(make())
            self._sources, self._state = tuple(sources), (k, *map(state_of, sources))
            self._storages = tuple(tensor.untyped_storage() for tensor in sources)
            self._contents = tuple(tensor.clone() for tensor in sources if tensor.is_inference())
        return self._lists

    def _matches(self, sources: Sequence[Tensor], k: int) -> bool:
        """Whether the lists are of ``k`` entries and made of ``sources`` as they are now."""
        if self._state != (k, *map(state_of, sources)):
            return False
        unversioned = (tensor for tensor in sources if tensor.is_inference())
        return all(map(torch.equal, unversioned, self._contents))
