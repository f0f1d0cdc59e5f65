"""Choice of the backend, launches and their recorder, variants by batch size, doctests, and the tests' own tools."""

from __future__ import annotations

import doctest
import importlib
import inspect
import os
import pkgutil
import subprocess
import sys

import pytest
import torch
from project_root import ROOT

import lmn_kernels
from lmn_kernels import backend as backend_module
from lmn_kernels.backend import use_triton
from lmn_kernels.launch import launch_counts, record_launches
from lmn_kernels.optim import RowSGD
from lmn_kernels.testing import assert_within_reference_error, brute_force_topk, make_bag_inputs, make_router_inputs

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
NO_TRITON = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "triton":
            raise ModuleNotFoundError("No module named 'triton'", name=name)
sys.meta_path.insert(0, Blocker())
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "triton" else find_spec(name, package)
"""
READ = """
import torch, lmn_kernels
from lmn_kernels.testing import make_memory_inputs
inputs = make_memory_inputs(3, 1, 4, 2, 5, requires_grad=True)
def read(backend):
    lmn_kernels.memory_lookup(*inputs, 2, backend=backend).output.sum().backward()
"""
VARIANTS = """
import torch
from lmn_kernels.gather_aggregate.triton import launch_touched_rows, launch_values_backward, launch_weights_backward
from lmn_kernels.launch import record_launches
from lmn_kernels.memory_lookup.triton import launch_memory_lookup
from lmn_kernels.product_key_topk.triton import launch_product_key_topk, launch_product_key_topk_backward
from lmn_kernels.testing import make_bag_inputs, make_memory_inputs

def variant(launch):
    kinds = []
    for parameter, value in zip(launch.kernel.params, launch.args):
        if isinstance(value, int) and not parameter.do_not_specialize:
            kinds.append((parameter.name, value == 1, value % 16 == 0))
    return launch.kernel.__name__, tuple(kinds), str(launch.meta)

known, again = set(), set()
for B in (33, 1, 16, 17):  # the first compiles all there are
    queries, keys, values = make_memory_inputs(B, 1, 8, 4, 5)
    _, slots, weights = make_bag_inputs(B, 3, 64, 5)
    slots = torch.arange(B * 3).remainder(64).view(B, 3)
    with record_launches() as launches:
        launch_memory_lookup(queries, keys, values, 3, "dot", "softmax")
        launch_product_key_topk(queries.double(), keys.double(), 3, "dot")
        launch_product_key_topk_backward(
            weights[:, None], queries, keys, slots[:, None], None, "dot", "none", (True, True)
        )
        launch_weights_backward(torch.ones(B, 5), values, slots, torch.float32)
        launch_values_backward(torch.ones(B, 5), slots, weights, 64, torch.float32)
        launch_touched_rows(torch.ones(B, 5), slots, weights, 64, torch.float32, padded=True)
    calls = {variant(launch) for launch in launches}
    again |= {name for name, *_ in calls - known} if known else set()
    known |= calls
print(sorted(again), len({name for name, *_ in known}) >= 10)
"""


def run_python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``program`` from the repository's ROOT, without the interpreter unless ``environment`` says so."""
    kept = {name: value for name, value in os.environ.items() if name not in ("TRITON_INTERPRET", "LMN_BACKEND")}
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=kept | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def with_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if Triton were installed, which it need not be for the choice alone, and no wish in the environment."""
    monkeypatch.setattr(backend_module, "triton_installed", lambda: True)
    monkeypatch.delenv("LMN_BACKEND", raising=False)


@pytest.mark.usefixtures("with_triton")
def test_auto_takes_triton_on_a_gpu_and_torch_elsewhere() -> None:
    assert use_triton("op", "auto", CUDA)
    assert not use_triton("op", "auto", CPU)
    assert not use_triton("op", "torch", CUDA)
    assert use_triton("op", "triton", CUDA)


@pytest.mark.usefixtures("with_triton")
def test_the_environment_says_what_auto_means_and_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMN_BACKEND", "torch")
    assert not use_triton("op", "auto", CUDA)
    assert use_triton("op", "triton", CUDA)
    monkeypatch.setenv("LMN_BACKEND", "triton")
    assert use_triton("op", "auto", CUDA)
    assert not use_triton("op", "torch", CUDA)
    monkeypatch.setenv("LMN_BACKEND", "cuda")
    with pytest.raises(ValueError, match="op: LMN_BACKEND must be one of 'auto', 'triton', 'torch', got 'cuda'"):
        use_triton("op", "auto", CPU)


def test_launchers_take_the_arguments_of_their_references() -> None:
    """``on_backend`` calls either with the same arguments; a launcher may take more, which have defaults."""
    pytest.importorskip("triton")
    pairs = [
        (lmn_kernels.memory_lookup, ["memory_lookup"]),
        (lmn_kernels.product_key_topk, ["product_key_topk", "product_key_topk_backward"]),
        (lmn_kernels.gather_aggregate, ["gather_aggregate", "weights_backward", "values_backward", "touched_rows"]),
        (RowSGD, ["adagrad", "adam", "sgd"]),
    ]
    for public, names in pairs:
        folder = public.__module__.rpartition(".")[0]
        reference, kernels = (importlib.import_module(f"{folder}.{module}") for module in ("reference", "triton"))
        for name in names:
            taken = list(inspect.signature(getattr(reference, f"{name}_reference")).parameters)
            launched = list(inspect.signature(getattr(kernels, f"launch_{name}")).parameters.values())
            assert [parameter.name for parameter in launched[: len(taken)]] == taken, name
            assert all(parameter.default is not parameter.empty for parameter in launched[len(taken) :]), name


def test_the_environment_reaches_the_kernels(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    pytest.importorskip("triton")
    for wish, launches in (("triton", 1), ("torch", 0)):
        monkeypatch.setenv("LMN_BACKEND", wish)
        launch_counts.clear()
        lmn_kernels.gather_aggregate(*make_bag_inputs(1, 1, 2, 3, device=device))
        assert launch_counts.total() == launches


@pytest.mark.usefixtures("with_triton")
def test_triton_on_the_cpu_is_refused_without_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(RuntimeError, match="op: backend='triton' needs tensors on a GPU, got cpu; move them there"):
        use_triton("op", "triton", CPU)


def test_a_process_without_the_interpreter_raises_on_the_cpu() -> None:
    pytest.importorskip("triton")
    done = run_python(f"{READ}\nread('auto')\nread('triton')")
    assert "RuntimeError: memory_lookup: backend='triton' needs tensors on a GPU, got cpu" in done.stderr


def test_without_triton_installed_the_choice_is_said_aloud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "triton_installed", lambda: False)
    monkeypatch.delenv("LMN_BACKEND", raising=False)
    backend_module._warn_no_triton.cache_clear()
    with pytest.warns(RuntimeWarning, match="Triton is not installed, so GPU tensors take the slower torch backend"):
        assert not use_triton("op", "auto", CUDA)
    with pytest.raises(RuntimeError, match="op: backend='triton' needs Triton, which is not installed"):
        use_triton("op", "triton", CUDA)


def test_a_process_without_triton_imports_reads_and_refuses() -> None:
    done = run_python(f"{NO_TRITON}{READ}\nread('auto')\nread('torch')\nprint('read', 'triton' in sys.modules)")
    assert done.stdout == "read False\n", done.stderr
    done = run_python(f"{NO_TRITON}{READ}\nread('triton')")
    assert "RuntimeError: memory_lookup: backend='triton' needs Triton, which is not installed" in done.stderr


def test_the_import_does_not_import_triton() -> None:
    done = run_python("import sys, lmn_kernels\nprint('triton' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


def test_launches_are_recorded_instead_of_run(device: torch.device) -> None:
    pytest.importorskip("triton")
    bag = make_bag_inputs(2, 3, 4, 5, device=device)
    launch_counts.clear()
    with record_launches() as outer, record_launches() as inner:
        lmn_kernels.gather_aggregate(*bag, backend="triton")
    assert outer == []
    assert [record.kernel.__name__ for record in inner] == ["_gather_aggregate_fwd_kernel"]
    assert inner[0].grid == (1, 1)
    assert inner[0].meta["D"] == 5
    assert launch_counts.total() == 0
    lmn_kernels.gather_aggregate(*bag, backend="triton")
    assert launch_counts == {"_gather_aggregate_fwd_kernel": 1}


def test_no_kernel_is_compiled_again_for_a_new_batch_size() -> None:
    pytest.importorskip("triton")
    done = run_python(VARIANTS)
    assert done.stdout.split() == ["[]", "True"], done.stdout + done.stderr


@pytest.mark.gpu
def test_one_binary_serves_all_batch_sizes(device: torch.device) -> None:
    from lmn_kernels.product_key_topk.triton import pair_selection as lists
    from lmn_kernels.product_key_topk.triton import survivors

    jitted = (survivors._product_key_topk_survivors_fwd_kernel, lists._product_key_topk_lists_fwd_kernel)
    counts = []
    for B in (1, 16, 17, 33):
        lmn_kernels.product_key_topk(*make_router_inputs(B, 1, 37, 19, device=device), 6, backend="triton")
        counts.append([len(kernel.device_caches[device.index][0]) for kernel in jitted])
    assert counts == [counts[0]] * 4


def test_doctests() -> None:
    tried = 0
    for module in pkgutil.walk_packages(lmn_kernels.__path__, "lmn_kernels."):
        if module.name.endswith(".triton"):
            continue
        failed, attempted = doctest.testmod(importlib.import_module(module.name))
        assert not failed, module.name
        tried += attempted
    assert tried >= 10


def test_the_rule_for_errors_can_fail() -> None:
    truth = torch.tensor([1.0, 2.0], dtype=torch.float64)
    exact = truth.float()
    assert_within_reference_error(exact, exact, truth)
    assert_within_reference_error(exact + 0.19, exact + 0.1, truth)
    with pytest.raises(AssertionError, match=r"weights: error 2.1.*e-01 is above 2.0.*e-01; plain torch errs by 1.0"):
        assert_within_reference_error(exact + 0.21, exact + 0.1, truth, name="weights")
    with pytest.raises(AssertionError, match="error nan"):
        assert_within_reference_error(exact * torch.nan, exact, truth)
    with pytest.raises(AssertionError, match=r"output: expected torch.float32 \[2\], got torch.float64 \[2\]"):
        assert_within_reference_error(truth, exact, truth)
    with pytest.raises(ValueError, match="output: truth must be finite"):
        assert_within_reference_error(exact, exact, truth / 0)


def test_the_oracle_orders_ties_infinities_and_nan() -> None:
    keys = torch.tensor([[[torch.nan, 1.0, torch.inf], [-torch.inf, 0.0, 0.0]]]).view(1, 2, 3, 1)
    scores, slots = brute_force_topk(torch.ones(1, 1, 2, 1), keys, 3)
    assert slots.flatten().tolist() == [7, 8, 4]
    assert scores.flatten().tolist() == [torch.inf, torch.inf, 1]
    scores, slots = brute_force_topk(torch.ones(1, 1, 2, 1), keys[:, :, :1], 1)
    assert (scores.item(), slots.item()) == (-torch.inf, 0)


def test_fresh_memory_is_poisoned(device: torch.device) -> None:
    assert torch.empty(5, device=device).isnan().all()


def test_the_faster_interpreter_sorts_like_the_slow_one(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    pytest.importorskip("triton")
    if device.type == "cuda":
        pytest.skip("nothing is interpreted on a GPU")
    import fast_interpreter
    from triton.runtime import interpreter

    inputs = make_router_inputs(2, 1, 5, 3, ties=True)
    fast = lmn_kernels.product_key_topk(*inputs, 3, backend="triton")
    monkeypatch.setattr(interpreter.ReduceOps, "apply_impl", fast_interpreter.reduce_slowly)
    slow = lmn_kernels.product_key_topk(*inputs, 3, backend="triton")
    assert torch.equal(fast.slots, slow.slots)
    assert torch.equal(fast.scores, slow.scores)
