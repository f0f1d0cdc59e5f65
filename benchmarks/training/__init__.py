"""Speed and memory of training.

- ``python -m benchmarks.training.layer_step``: a training step of the layer over the size of its memory.
- ``python -m benchmarks.training.large_tables``: making, training, saving and loading 2^24 and 2^26 slots.
- ``python -m benchmarks.training.profile``: shares of the parts of ``lmn train``.
- ``python -m benchmarks.training.against_fuxictr``: ``lmn train`` beside FuxiCTR.
- ``python -m benchmarks.training.default_sizes``: sizes chosen by the data beside fixed ones.
"""
