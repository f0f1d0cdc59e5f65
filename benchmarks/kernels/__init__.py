"""Speed, peak memory and determinism of the ops, beside other implementations of the same maths.

- ``python -m benchmarks.kernels.cpu``: the CPU targets.
- ``python -m pytest benchmarks/kernels``: every op, pass and shape, under pytest-benchmark.
- ``python -m benchmarks.kernels.compile_time``: a cold ``torch.compile``.
- ``python -m benchmarks.kernels.sanitize``: all ops at small shapes, for ``compute-sanitizer``.

``python -m benchmarks.gpu`` runs everything on one GPU.
"""
