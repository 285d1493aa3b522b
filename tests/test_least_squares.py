"""Many networks are fitted at once as each would be alone, to the minima that SciPy finds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from companion import least_squares
from companion.networks import MLP

F64 = torch.float64


class Decay:
    """f(x) = a exp(-b x) + c with a vector (a, b) and a number c: not a network of the package."""

    def init(self, *, seed, scale=1.0, device=None, dtype=F64) -> dict[str, Tensor]:
        drawn = [torch.rand(3, generator=torch.Generator().manual_seed(s)) for s in seed]
        theta = scale * torch.stack(drawn).to(device=device, dtype=dtype)
        return {"ab": theta[:, :2], "c": theta[:, 2]}

    def __call__(self, params: dict[str, Tensor], x: Tensor) -> Tensor:
        a, b = params["ab"][..., :1], params["ab"][..., 1:]
        return a * torch.exp(-b * x[..., 0]) + params["c"][..., None]


def decay_data() -> tuple[Tensor, Tensor]:
    x = torch.linspace(0, 3, 40, dtype=F64)[:, None]
    noise = 0.05 * torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=F64)
    return x, 2 * torch.exp(-1.5 * x[:, 0]) + 0.5 + noise


def plane_data(num: int = 60) -> tuple[Tensor, Tensor]:
    x = 2 * torch.rand(num, 2, generator=torch.Generator().manual_seed(1), dtype=F64) - 1
    return x, torch.sin(2 * x[:, 0]) * x[:, 1]


class Smooth(MLP):
    """An MLP whose squared output is smooth enough for finite differences."""

    def __call__(self, params, x):
        return torch.sin(super().__call__(params, x))


# --- Jacobian ------------------------------------------------------------------------------------


def test_jacobian_agrees_with_finite_differences() -> None:
    net, (x, _) = Smooth((2, 3, 1), activation="linear"), plane_data(7)
    params = net.init(seed=[0, 1])
    theta = least_squares.flatten(params)
    J = least_squares.jacobian(net, params, x)
    assert J.shape == (2, 7, net.num_params)
    h = 1e-6
    for p in range(net.num_params):
        shift = torch.zeros_like(theta)
        shift[:, p] = h
        ahead, behind = (
            net(least_squares.unflatten(theta + s * shift, params), x) for s in (1, -1)
        )
        torch.testing.assert_close(J[..., p], (ahead - behind) / (2 * h), atol=1e-9, rtol=1e-7)


def test_jacobian_takes_parameters_of_any_shape() -> None:
    x, _ = decay_data()
    params = Decay().init(seed=[3, 4])
    J = least_squares.jacobian(Decay(), params, x)
    a, b = params["ab"].unbind(1)
    e = torch.exp(-b[:, None] * x[:, 0])
    expected = torch.stack([e, -a[:, None] * x[:, 0] * e, torch.ones_like(e)], dim=-1)
    torch.testing.assert_close(J, expected)


def test_flatten_and_unflatten_are_inverse() -> None:
    params = MLP((3, 4, 1)).init(seed=[0, 1, 2])
    theta = least_squares.flatten(params)
    back = least_squares.unflatten(theta[1:], params)
    assert all(torch.equal(back[name], params[name][1:]) for name in params)


def test_normal_equations_do_not_depend_on_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    net, (x, y) = MLP((2, 3, 1)), plane_data(23)
    params = net.init(seed=[0, 1])
    whole = least_squares._normal_equations(net, params, x, y)
    monkeypatch.setattr(least_squares, "MEMORY", 3 * 8 * 2 * net.num_params * 5.0)  # 5 points
    for part, total in zip(least_squares._normal_equations(net, params, x, y), whole, strict=True):
        torch.testing.assert_close(part, total)
    J = least_squares.jacobian(net, params, x)
    r = net(params, x) - y
    torch.testing.assert_close(whole[1], torch.einsum("mnp,mn->mp", J, r) / 23)
    torch.testing.assert_close(whole[2], torch.einsum("mnp,mnq->mpq", J, J) / 23)


# --- Levenberg-Marquardt -------------------------------------------------------------------------


def test_minimum_is_that_of_scipy() -> None:
    x, y = decay_data()
    t, target = x[:, 0].numpy(), y.numpy()
    reference = scipy.optimize.least_squares(
        lambda p: p[0] * np.exp(-p[1] * t) + p[2] - target, [0.5, 0.5, 0.5],
        method="lm", xtol=1e-15, ftol=1e-15, gtol=1e-15,
    )  # fmt: skip
    starts = Decay().init(seed=range(8))
    found = least_squares.levenberg_marquardt(Decay(), starts, x, y, ftol=1e-15)
    assert found.converged.all()
    theta = least_squares.flatten(found.params)
    torch.testing.assert_close(theta, torch.tensor(reference.x).expand(8, 3), atol=1e-6, rtol=1e-6)
    assert torch.allclose(found.loss, torch.tensor(2 * reference.cost / 40, dtype=F64), rtol=1e-12)


def test_a_linear_model_takes_a_few_steps_to_the_exact_solution() -> None:
    x, y = plane_data()
    net = MLP((2, 1))
    found = least_squares.levenberg_marquardt(net, net.init(seed=[0, 1]), x, y, ftol=1e-14)
    exact = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
    assert found.steps.max() <= 8
    torch.testing.assert_close(found.params["W1"], exact.expand(2, 1, 2), atol=1e-9, rtol=1e-9)


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_losses_never_rise_and_are_those_of_the_parameters(seed: int, width: int) -> None:
    net, (x, y) = MLP((2, width, 1)), plane_data(25)
    found = least_squares.levenberg_marquardt(net, net.init(seed=[seed, seed + 1]), x, y, steps=15)
    assert (found.history.diff(dim=0) <= 0).all()
    assert torch.equal(found.history[-1], found.loss)
    torch.testing.assert_close(found.loss, least_squares.mean_square(net, found.params, x, y))
    assert len(found.history) <= 16 and found.steps.max() == len(found.history) - 1


def test_each_network_comes_out_as_it_would_alone() -> None:
    net, (x, y) = MLP((2, 6, 1)), plane_data()
    together = least_squares.adam(net, net.init(seed=range(5)), x, y, steps=40)
    alone = least_squares.adam(net, net.init(seed=[3]), x, y, steps=40)
    assert all(torch.equal(alone[name][0], together[name][3]) for name in alone)  # every bit
    many = least_squares.levenberg_marquardt(net, together, x, y, steps=12)
    one = least_squares.levenberg_marquardt(net, alone, x, y, steps=12)
    for name in alone:  # batched products may round differently
        torch.testing.assert_close(one.params[name][0], many.params[name][3], rtol=1e-6, atol=1e-8)
    assert one.steps[0] == many.steps[3]


def test_a_network_that_has_stopped_stays_put_while_others_go_on() -> None:
    net, (x, _) = MLP((2, 4, 1)), plane_data()
    start = net.init(seed=[0, 1])
    y = net({name: p[0] for name, p in start.items()}, x)  # network 0 fits exactly
    found = least_squares.levenberg_marquardt(net, start, x, y, steps=5)
    assert found.loss[0] == 0 and found.steps.tolist()[0] == 0 and found.converged[0]
    assert found.steps[1] == 5
    assert all(torch.equal(found.params[name][0], start[name][0]) for name in start)


def test_parameters_that_do_not_matter_do_no_harm() -> None:
    net, (x, y) = MLP((2, 2, 1)), plane_data()
    start = net.init(seed=[0])
    start["W1"][0, 0], start["W2"][0, 0, 0] = 0.0, 0.0  # a unit without input or output
    found = least_squares.levenberg_marquardt(net, start, x, y)
    assert torch.isfinite(found.loss).all() and found.loss < found.history[0]


def test_a_start_that_is_not_finite_is_left_alone() -> None:
    x, y = decay_data()
    start = {"ab": torch.tensor([[1.0, -1e3], [1.0, 1.0]], dtype=F64), "c": torch.zeros(2).double()}
    found = least_squares.levenberg_marquardt(Decay(), start, x, y)
    assert found.loss[0] == torch.inf and not found.converged[0] and found.steps[0] == 0
    assert found.converged[1]


def test_no_steps_change_nothing() -> None:
    net, (x, y) = MLP((2, 3, 1)), plane_data()
    start = net.init(seed=[0])
    found = least_squares.levenberg_marquardt(net, start, x, y, steps=0)
    assert len(found.history) == 1 and not found.converged
    assert all(torch.equal(found.params[name], start[name]) for name in start)
    same = least_squares.adam(net, start, x, y, steps=0)
    assert all(torch.equal(same[name], start[name]) for name in start)


# --- fit -----------------------------------------------------------------------------------------


def test_fit_keeps_the_best_starts_and_sorts_them() -> None:
    net, (x, y) = MLP((2, 8, 1)), plane_data()
    found = least_squares.fit(net, x, y, seeds=range(10, 18), keep=4, adam_steps=60, lm_steps=20)
    assert found.loss.shape == (4,) and (found.loss.diff() >= 0).all()
    best_starts = sorted(range(8), key=lambda m: float(found.start_loss[m]))[:4]
    assert sorted(found.seeds) == sorted(10 + m for m in best_starts)
    for place, seed in enumerate(found.seeds):
        assert found.history[0, place] == found.start_loss[seed - 10]
    torch.testing.assert_close(found.history[-1], found.loss)
    torch.testing.assert_close((net(found.best, x) - y).square().mean(), found.loss[0])
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.loss = None


def test_fit_repeats_bit_for_bit_and_leaves_its_data_alone() -> None:
    net, (x, y) = MLP((2, 5, 1)), plane_data()
    before = x.clone(), y.clone()
    options = {"seeds": range(4), "keep": 2, "adam_steps": 20, "lm_steps": 5}
    one, two = (least_squares.fit(net, x, y, **options) for _ in range(2))
    assert all(torch.equal(one.params[name], two.params[name]) for name in one.params)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])


def test_fit_recovers_a_teacher() -> None:
    teacher, x = MLP((2, 2, 1)), plane_data(200)[0]
    y = teacher(teacher.init(seed=5), x)
    found = least_squares.fit(MLP((2, 4, 1)), x, y, seeds=range(12), ftol=1e-12)
    assert least_squares.relative_error(MLP((2, 4, 1))(found.best, x), y) < 1e-6


def test_fit_runs_where_the_data_are(device: str) -> None:
    x, y = (t.to(device) for t in plane_data())
    found = least_squares.fit(MLP((2, 3, 1)), x, y, seeds=[0, 1], keep=1, adam_steps=5, lm_steps=2)
    assert found.loss.device == x.device and found.params["W1"].device == x.device


def test_relative_error_is_one_for_the_mean() -> None:
    _, y = plane_data()
    assert least_squares.relative_error(y.mean().expand(60), y) == pytest.approx(1.0)
    assert least_squares.relative_error(torch.stack([y, y + y.std(unbiased=False)]), y).tolist() \
        == pytest.approx([0.0, 1.0])  # fmt: skip


# --- bad input -----------------------------------------------------------------------------------

X, Y = plane_data(5)
NET = MLP((2, 3, 1))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"seeds": []}, ValueError, "seeds must hold at least one"),
        ({"seeds": 3}, TypeError, "seeds must be a sequence"),
        ({"seeds": [0.5]}, TypeError, r"seeds\[0\] must be an integer"),
        ({"keep": 3}, ValueError, "keep must be at most the number of seeds, 2, got 3"),
        ({"keep": 0}, ValueError, "keep must be at least 1"),
        ({"adam_steps": -1}, ValueError, "steps must be at least 0"),
        ({"lm_steps": 1.5}, TypeError, "steps must be an integer"),
        ({"lr": 0}, ValueError, "lr must be finite and greater than 0"),
        ({"ftol": -1e-3}, ValueError, "ftol must be finite and at least 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"x": X.float()}, ValueError, "x must be in float64, got torch.float32"),
        ({"x": X.tolist()}, TypeError, "x must be a torch.Tensor"),
        ({"x": X * torch.nan}, ValueError, "x must be finite"),
        ({"x": X[0]}, ValueError, r"x and y must have shapes \(N, d\) and \(N,\)"),
        ({"x": X[:0], "y": Y[:0]}, ValueError, "N >= 1"),
        ({"y": Y[:4]}, ValueError, r"got \(5, 2\) and \(4,\)"),
        ({"y": Y.float()}, ValueError, "y must have the dtype and device of x"),
        ({"y": Y / 0}, ValueError, "y must be finite"),
        ({"net": MLP((2, 3, 2))}, ValueError, r"\(M, N\), got \(2, 1, 2\) for N = 1"),
        ({"net": MLP((3, 3, 1))}, ValueError, "x must have shape"),
    ],
)
def test_fit_refuses(change: dict, error: type[Exception], match: str) -> None:
    arguments = {"net": NET, "x": X, "y": Y, "seeds": [0, 1], "keep": 1, **change}
    net, x, y = (arguments.pop(name) for name in ("net", "x", "y"))
    with pytest.raises(error, match=match):
        least_squares.fit(net, x, y, **arguments)


def test_parameters_without_a_common_leading_axis_are_refused() -> None:
    with pytest.raises(ValueError, match="params must all have one leading axis M"):
        least_squares.levenberg_marquardt(NET, NET.init(seed=0), X, Y)
    with pytest.raises(ValueError, match="gtol must be finite and at least 0"):
        least_squares.levenberg_marquardt(NET, NET.init(seed=[0]), X, Y, gtol=-1.0)


def test_relative_error_refuses() -> None:
    with pytest.raises(ValueError, match="as many points"):
        least_squares.relative_error(Y[:3], Y)
    with pytest.raises(ValueError, match="y must not be constant"):
        least_squares.relative_error(Y, torch.ones_like(Y))
    with pytest.raises(TypeError, match="f must be a torch.Tensor"):
        least_squares.relative_error([1.0], Y)
