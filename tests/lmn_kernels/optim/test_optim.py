"""Row optimisers against their dense counterparts in torch, run on the rows that each step touches."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hardware import GPU
from optimizers_factory import OPTIMIZERS, D, M, make, rows_of
from torch import Tensor, nn

from lmn_kernels import gather_aggregate
from lmn_kernels.launch import launch_counts
from lmn_kernels.optim import RowOptimizer, RowSGD, clip_grad_norm_
from lmn_kernels.optim.touched_rows import TouchedRows, sum_rows_without_waiting, touched_rows

KERNELS = {"adagrad": "_row_adagrad_kernel", "adam": "_row_adam_kernel", "sgd": "_row_sgd_kernel"}


@pytest.fixture(params=OPTIMIZERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def dense_step(kind: str, rows: Tensor, gradient: Tensor, state: dict[str, Tensor], step: int) -> Tensor:
    """The rows after one step of torch's own optimiser with this state; the state is updated.

    Where torch has no optimiser with one number a row, the formula stands here.
    """
    settings = OPTIMIZERS[kind][1]
    lr = settings["lr"]
    if kind == "adagrad":
        state["total"] += gradient.square().sum(1) / gradient.shape[1]
        return rows - lr * gradient / (state["total"].sqrt() + settings["eps"])[:, None]
    parameter = nn.Parameter(rows.clone())
    parameter.grad = gradient
    if kind.startswith("adam"):
        first, second = settings["betas"]
        if kind == "adam_row_wise":
            state["mean"].mul_(first).add_((1 - first) * gradient)
            state["square"].mul_(second).add_((1 - second) * (gradient**2).mean(1))
            divisor = (state["square"] / (1 - second**step)).sqrt() + 1e-8
            return rows - lr * state["mean"] / (1 - first**step) / divisor[:, None]
        dense: torch.optim.Optimizer = torch.optim.Adam([parameter], lr=lr, betas=(first, second), foreach=False)
        dense.state[parameter] = {
            "step": torch.tensor(float(step - 1)), "exp_avg": state["mean"], "exp_avg_sq": state["square"]
        }  # fmt: skip
    else:
        momentum = settings.get("momentum", 0.0)
        dense = torch.optim.SGD([parameter], lr=lr, momentum=momentum, nesterov=settings.get("nesterov", False))
        if momentum:
            dense.state[parameter] = {"momentum_buffer": state["velocity"]}
    dense.step()
    return parameter.detach()


@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
@pytest.mark.parametrize("losses", [1, 2], ids=["one loss", "two losses"])
def test_fifty_steps_equal_the_dense_optimiser_on_the_touched_rows(
    kind: str, losses: int, weight_decay: float, backend: str, device: torch.device
) -> None:
    """Random slots that repeat, gradients accumulated from several backward passes, clipped; float64."""
    steps = 50 if backend == "torch" or GPU else 8  # the interpreter is slow
    table = nn.Parameter(torch.randn(M, D, dtype=torch.float64, device=device))
    expected = table.detach().clone()
    optimizer = make(kind, [table], backend, weight_decay=weight_decay)
    state: dict[str, Tensor] = {}
    for name in {"adagrad": ["total"], "sgd": [], "adam": ["mean", "square"]}.get(kind, ["velocity"]):
        state[name] = torch.zeros(M, dtype=torch.float64) if name == "total" else torch.zeros_like(expected)
    if kind == "adagrad":
        state["total"] = torch.full((M,), 0.1, dtype=torch.float64, device=device)
    if kind == "adam_row_wise":
        state = {"mean": torch.zeros_like(expected), "square": torch.zeros_like(expected[:, 0])}
    for step in range(1, steps + 1):
        gradient = torch.zeros_like(expected)
        touched = torch.zeros(M, dtype=torch.bool, device=device)
        for _ in range(losses):
            slots = torch.randint(M, (3, 4), device=device)
            weights = torch.randn(3, 4, dtype=torch.float64, device=device)
            upstream = torch.randn(3, D, dtype=torch.float64, device=device)
            (gather_aggregate(table, slots, weights, sparse_grad=True, backend="torch") * upstream).sum().backward()
            gradient.index_add_(0, slots.flatten(), (weights[:, :, None] * upstream[:, None]).flatten(0, 1))
            touched[slots.flatten()] = True
        norm = clip_grad_norm_([table], 2.0)
        torch.testing.assert_close(norm, gradient.norm(), rtol=1e-10, atol=0)
        gradient *= min(1.0, 2.0 / (gradient.norm() + 1e-6))
        optimizer.step()
        optimizer.zero_grad(set_to_none=step % 2 == 0)
        rows = touched.nonzero()[:, 0]
        part = {name: tensor[rows] for name, tensor in state.items()}
        kept = expected[rows] * (1 - OPTIMIZERS[kind][1]["lr"] * weight_decay)
        expected[rows] = dense_step(kind, kept, gradient[rows], part, step)
        for name, tensor in state.items():
            tensor[rows] = part[name]
    assert (table.detach() - expected).abs().max() <= 1e-10
    for name, tensor in state.items():
        assert (optimizer.state[table][name] - tensor).abs().max() <= 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [1, 40, 2500])
def test_kernel_equals_torch(kind: str, dtype: torch.dtype, width: int, device: torch.device) -> None:
    pytest.importorskip("triton")
    first = nn.Parameter(torch.randn(9, width, device=device).to(dtype))
    second = nn.Parameter(first.detach().clone())
    one = make(kind, [first], "torch", weight_decay=0.1, seed=2**40 + 7)
    other = make(kind, [second], "triton", weight_decay=0.1, seed=2**40 + 7)
    launch_counts.clear()
    for _ in range(3):
        slots = torch.randint(9, (6,), device=device)
        gradient = rows_of(slots, torch.randn(6, width, device=device).to(dtype), 9)
        first.grad, second.grad = gradient, gradient.clone()
        one.step()
        other.step()
    assert sum(launch_counts[name] for name in KERNELS.values()) == 3
    # A last bit of difference before the rounding turns some roundings, in each of three steps, by a unit.
    unit = {torch.float32: 1e-5, torch.bfloat16: 3 * 2**-7, torch.float16: 3 * 2**-10}[dtype]
    torch.testing.assert_close(second, first, rtol=unit, atol=1e-5)
    if dtype != torch.float32:
        assert (second != first).float().mean() < 0.02
    for name, tensor in one.state[first].items():
        torch.testing.assert_close(other.state[second][name], tensor, rtol=1e-5, atol=1e-6)


def test_rows_that_nobody_touched_stay_as_they_are(kind: str, backend: str, device: torch.device) -> None:
    table = nn.Parameter(torch.randn(M, D, device=device))
    before = table.detach().clone()
    optimizer = make(kind, [table], backend, weight_decay=0.5)
    for slots in ([3, 7, 3], [7], []):
        index = torch.tensor(slots, dtype=torch.int64, device=device)
        table.grad = rows_of(index, torch.ones(len(slots), D, device=device))
        optimizer.step()
    changed = (table != before).any(1).nonzero()[:, 0].tolist()
    assert changed == [3, 7]


def test_padding_of_a_captured_graph_changes_nothing(kind: str, device: torch.device) -> None:
    """What ``touched_rows`` gives while a graph is captured: the first slot again, with zeros."""
    pytest.importorskip("triton")
    tables = [nn.Parameter(torch.ones(M, D, device=device)) for _ in range(2)]
    slots, sums = torch.tensor([2, 5], device=device), torch.randn(2, D, device=device)
    padded = TouchedRows(torch.cat((slots, slots[:1].repeat(300))), torch.cat((sums, sums.new_zeros(300, D))))
    for table, touched in zip(tables, (TouchedRows(slots, sums), padded), strict=True):
        optimizer = make(kind, [table], "triton", weight_decay=0.1)
        group = optimizer.param_groups[0]
        state = optimizer._state_of(table, group)
        state["step"] += 1
        optimizer._update(table, touched, state, group, None)
    assert torch.equal(tables[0], tables[1])


def test_two_losses_and_a_memory_used_twice_are_one_update(kind: str) -> None:
    start = torch.randn(M, D)
    slots = torch.randint(M, (2, 6, 3))
    weights = torch.rand(2, 6, 3)

    def losses(table: Tensor) -> list[Tensor]:
        reads = [gather_aggregate(table, slots[i], weights[i], sparse_grad=True) for i in range(2)]
        return [reads[0].square().sum() + reads[1].sum(), (reads[0] - reads[1]).abs().sum()]

    together, apart = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    sum(losses(together)).backward()  # type: ignore[union-attr]
    for loss in losses(apart):
        loss.backward(retain_graph=True)
    for table in (together, apart):
        make(kind, [table]).step()
    torch.testing.assert_close(apart, together)
    assert not torch.equal(together, start)


def test_state_goes_through_a_state_dict(kind: str) -> None:
    """In float32 for a bfloat16 table too, where torch's own loader would round it."""
    table = nn.Parameter(torch.randn(M, D).bfloat16())
    optimizer = make(kind, [table], lr=0.01)
    gradients = [rows_of(torch.randint(M, (7,)), torch.randn(7, D).bfloat16()) for _ in range(6)]

    def run(optimizer: RowOptimizer, table: Tensor, gradients: list[Tensor]) -> None:
        for gradient in gradients:
            table.grad = gradient
            optimizer.step()

    run(optimizer, table, gradients[:3])
    packed = copy.deepcopy(optimizer.state_dict())
    resumed = nn.Parameter(table.detach().clone())
    other = make(kind, [resumed], lr=99.0)
    other.load_state_dict(packed)
    assert other.param_groups[0]["lr"] == 0.01
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in other.state[resumed].values())
    for each, its in ((optimizer, table), (other, resumed)):
        run(each, its, gradients[3:])
    assert torch.equal(table, resumed)
    if packed["state"][0].keys() - {"step"}:
        with pytest.raises(ValueError, match="the state of a table float32 \\[4, 5\\] must be"):
            make(kind, [nn.Parameter(torch.zeros(4, D))]).load_state_dict(packed)


def test_a_fresh_optimiser_loads_an_empty_state(kind: str) -> None:
    table = nn.Parameter(torch.zeros(M, D))
    optimizer = make(kind, [table])
    optimizer.load_state_dict(make(kind, [table]).state_dict())
    table.grad = rows_of(torch.tensor([1]), torch.ones(1, D))
    optimizer.step()
    assert optimizer.state[table]["step"] == 1


def test_groups_schedulers_and_tensor_learning_rates(kind: str, backend: str, device: torch.device) -> None:
    first, second = (nn.Parameter(torch.ones(M, D, device=device)) for _ in range(2))
    groups = [{"params": [first]}, {"params": [second], "lr": torch.tensor(0.0, device=device)}]
    optimizer = make(kind, groups, backend)  # type: ignore[arg-type]
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: float(epoch < 1))
    for expected_move in (True, False):
        before = first.detach().clone()
        for table in (first, second):
            table.grad = rows_of(torch.tensor([1], device=device), torch.ones(1, D, device=device))
        optimizer.step()
        scheduler.step()
        assert torch.equal(first, before) != expected_move
        assert torch.equal(second, torch.ones_like(second))


def test_grad_scaler_skips_infinite_steps_and_unscales_others(kind: str) -> None:
    scaled, plain = (nn.Parameter(torch.ones(M, D)) for _ in range(2))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    slots, weights = torch.randint(M, (4, 3)), torch.rand(4, 3)
    optimizer, reference = make(kind, [scaled]), make(kind, [plain])
    scaler.scale(gather_aggregate(scaled, slots, weights, sparse_grad=True).sum() * float("inf")).backward()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(scaled, plain)
    assert scaler.get_scale() == 4.0
    optimizer.zero_grad()
    scaler.scale(gather_aggregate(scaled, slots, weights, sparse_grad=True).sum()).backward()
    scaler.step(optimizer)
    gather_aggregate(plain, slots, weights, sparse_grad=True).sum().backward()
    reference.step()
    torch.testing.assert_close(scaled, plain)
    assert not torch.equal(plain, torch.ones_like(plain))


def test_frozen_tables_and_closures() -> None:
    frozen, table = nn.Parameter(torch.ones(M, D), requires_grad=False), nn.Parameter(torch.ones(M, D))
    optimizer = RowSGD([frozen, table], lr=0.5)

    def closure() -> Tensor:
        optimizer.zero_grad()
        read = gather_aggregate(table, torch.tensor([[1]]), torch.ones(1, 1), sparse_grad=True)
        loss = (read + gather_aggregate(frozen, torch.tensor([[2]]), torch.ones(1, 1), sparse_grad=True)).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2 * D
    assert torch.equal(frozen, torch.ones_like(frozen))
    assert (table[1] == 0.5).all()


def test_clipping_counts_dense_and_sparse_gradients_together() -> None:
    table, dense, without = (nn.Parameter(torch.zeros(M, D)) for _ in range(3))
    table.grad = rows_of(torch.tensor([1, 4, 1]), torch.ones(3, D))  # row 1 is [2, 2, ...] once added up
    dense.grad = torch.full((M, D), 0.5)
    full = torch.cat((table.grad.to_dense(), dense.grad))
    for norm_type in (2.0, 1.0, float("inf")):
        norm = clip_grad_norm_([table, dense, without], 1e9, norm_type)
        torch.testing.assert_close(norm, torch.linalg.vector_norm(full, norm_type))
    clip_grad_norm_([table, dense, without], 1.0)
    clipped = torch.cat((table.grad.to_dense(), dense.grad))
    torch.testing.assert_close(clipped, full / full.norm(), rtol=1e-5, atol=1e-6)
    table.grad = rows_of(torch.tensor([1]), torch.full((1, D), float("inf")))
    with pytest.raises(RuntimeError, match="non-finite"):
        clip_grad_norm_(table, 1.0, error_if_nonfinite=True)
    with pytest.raises(ValueError, match="max_norm must be at least 0, got -1"):
        clip_grad_norm_(table, -1)


def test_a_copied_and_a_pickled_optimiser_go_on(kind: str) -> None:
    table = nn.Parameter(torch.ones(M, D))
    optimizer = make(kind, [table])
    table.grad = rows_of(torch.tensor([1, 2]), torch.ones(2, D))
    optimizer.step()
    others = [copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))]
    optimizer.step()
    for other in others:
        (its,) = other.param_groups[0]["params"]
        its.grad = table.grad
        other.step()
        assert torch.equal(its, table)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_many_rows_of_one_slot_add_up_in_float32(dtype: torch.dtype) -> None:
    table = nn.Parameter(torch.zeros(M, D, dtype=dtype))
    table.grad = rows_of(torch.full((1000,), 3), torch.ones(1000, D, dtype=dtype))
    assert clip_grad_norm_(table, 1e9).item() == pytest.approx(1000 * D**0.5, rel=1e-5)
    table.grad = rows_of(torch.full((1000,), 3), torch.ones(1000, D, dtype=dtype))
    RowSGD([table], lr=2.0).step()
    assert (table[3] == -2000).all()


def test_strided_indices_are_read_right(kind: str, backend: str, device: torch.device) -> None:
    table = nn.Parameter(torch.ones(M, D, device=device))
    slots = torch.tensor([[1, 0, 4, 0, 6, 0]], device=device)[:, ::2]
    rows = torch.ones(3, D, device=device)
    table.grad = torch.sparse_coo_tensor(slots, rows, (M, D), is_coalesced=True, check_invariants=False)
    make(kind, [table], backend).step()
    assert (table != 1).any(1).nonzero()[:, 0].tolist() == [1, 4, 6]


def test_rows_in_order_are_not_sorted_again(device: torch.device) -> None:
    """Autograd drops the mark ``is_coalesced`` on the way into ``.grad``; the rows are read where they are."""
    table = nn.Parameter(torch.ones(M, D, device=device))
    for losses in range(1, 3 if device.type == "cpu" else 2):  # torch merges what it adds up on the CPU alone
        slots = torch.randint(M, (6, 3), device=device)
        gather_aggregate(table, slots, torch.rand(6, 3, device=device), sparse_grad=True).sum().backward()
        assert table.grad is not None
        assert not table.grad.is_coalesced(), losses
        touched = touched_rows(table.grad)
        assert touched.sums.data_ptr() == table.grad._values().data_ptr()
        assert touched.slots.tolist() == sorted(set(touched.slots.tolist()))
    clip_grad_norm_([table], 1.0)
    assert table.grad.is_coalesced()


@pytest.mark.parametrize("slots", [[4, 1, 2], [1, 4, 4], [4, 4], [1, 4, 1], [7]])
def test_rows_out_of_order_and_repeated_are_added_up(slots: list[int], device: torch.device) -> None:
    gradient = rows_of(torch.tensor(slots, device=device), torch.randn(len(slots), D, device=device))
    touched = touched_rows(gradient)
    assert touched.slots.tolist() == sorted(set(slots))
    torch.testing.assert_close(touched.sums, gradient.to_dense()[touched.slots])


def test_momentum_may_be_turned_on_and_off() -> None:
    table = nn.Parameter(torch.zeros(M, D))
    optimizer = RowSGD([table], lr=1.0)
    for momentum, at in ((0.0, -1), (0.5, -2), (0.5, -3.5), (0.0, -4.5)):
        optimizer.param_groups[0]["momentum"] = momentum
        table.grad = rows_of(torch.tensor([1]), torch.ones(1, D))
        optimizer.step()
        assert (table[1] == at).all()
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def test_tables_of_one_optimiser_are_rounded_apart() -> None:
    tables = [nn.Parameter(torch.ones(M, 64, dtype=torch.bfloat16)) for _ in range(2)]
    optimizer = RowSGD(tables, lr=1e-3)
    for table in tables:
        table.grad = rows_of(torch.tensor([1]), torch.ones(1, 64, dtype=torch.bfloat16))
    optimizer.step()
    assert not torch.equal(*tables)


def test_rows_summed_without_waiting_equal_coalesced_ones(device: torch.device) -> None:
    pytest.importorskip("triton")
    slots, rows = torch.randint(M, (40,), device=device), torch.randint(-4, 5, (40, D), device=device).float()
    expected = touched_rows(rows_of(slots, rows))
    padded = sum_rows_without_waiting(slots, rows, M, torch.float32)
    U = len(expected.slots)
    assert torch.equal(padded.slots[:U], expected.slots)
    assert torch.equal(padded.sums[:U], expected.sums)
    assert (padded.slots[U:] == expected.slots[0]).all()
    assert not padded.sums[U:].any()
