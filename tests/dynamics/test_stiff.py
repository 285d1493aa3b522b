"""The stiff integrator against closed forms, the Chebyshev steps, and what the flows conserve."""

from __future__ import annotations

import math
import time

import mpmath
import pytest
import torch

from companion import data, networks
from companion.dynamics.flow import LogLoss, LogNorm, LogTime, Rest, gradient_flow
from companion.dynamics.stiff import stiff_flow
from companion.networks import MLP, Diagonal, compose

THREE = data.three_points()
LINEAR = MLP(widths=(2, 1))
ONE = torch.ones(1, 1, dtype=torch.float64)


def test_one_example_is_exact() -> None:
    """With one example m = w . x the flow is a line and t = (e^l - e^{l_0}) / |x|^2."""
    x, y = torch.tensor([[0.6, -1.1]], dtype=torch.float64), ONE[0]
    path = stiff_flow(LINEAR, LINEAR.init(seed=1), x, y, until=LogLoss(-1000))
    l0, l = path.log_inverse_loss[0], path.log_inverse_loss[5:]  # noqa: E741
    exact = l + torch.log(-torch.expm1(l0 - l)) - float((x * x).sum().log())
    assert float(l[-1]) == pytest.approx(1000, rel=1e-12)
    # The first 1e-6 of the path, where log t leaves minus infinity, is cut short.
    late = l > l0 + 1
    torch.testing.assert_close(path.log_time[5:][late], exact[late], rtol=0, atol=1e-5)
    assert abs(float(path.log_time[-1] - exact[-1])) < 1e-6


@pytest.mark.parametrize("num_layers", [2, 3])
def test_chain_agrees_with_a_quadrature(num_layers: int) -> None:
    """W_k = a: l = a^K, dl/dtau = K l^{2 - 2/K}, so t = int e^l dl / (K l^{2 - 2/K})."""
    net = Diagonal(d=1, num_layers=num_layers)
    start = {name: 1.1 * ONE for name in net.layer_names}
    path = stiff_flow(net, start, ONE, ONE[0], until=LogLoss(-100))
    K, first = num_layers, 1.1**num_layers
    exact = mpmath.log(
        mpmath.quad(
            lambda s: mpmath.exp(s) / (K * s ** (2 - mpmath.mpf(2) / K)),
            [first, 10, 50, 80, 90, 95, 99, 100],
        )
    )
    assert float(path.log_time[-1]) == pytest.approx(float(exact), abs=1e-6)
    assert path.norm_drift < 1e-8


@pytest.mark.parametrize("system", ["unconstrained", "polar", "multipliers"])
def test_agrees_with_chebyshev_steps(system: str) -> None:
    net = MLP(widths=(2, 3, 1), activation="linear")
    start, until = net.init(seed=0), LogNorm(math.log(30.0))
    ours = stiff_flow(net, start, THREE.x, THREE.y, until=until, system=system)
    other = gradient_flow(
        net,
        start,
        THREE.x,
        THREE.y,
        until=until,
        system=system,
        relative_step=0.002,
        max_increment=0.1,
    )
    assert float(ours.rho[-1].prod()) == pytest.approx(30, rel=1e-12)
    V, V_other = (networks.directions(path.params) for path in (ours, other))
    for name in V:  # the other method's error, of second order in its step
        torch.testing.assert_close(V[name], V_other[name], rtol=0, atol=2e-4)


def test_time_to_the_power_of_ten_thousand() -> None:
    """Eq. 3, Eqs 6 and 7, and Eq. 1 on three points: rho ~ log t, angle ~ log 2 / (3 rho)."""
    start, seconds = LINEAR.init(seed=0), {}
    for system in ("unconstrained", "multipliers"):
        began = time.process_time()
        path = stiff_flow(LINEAR, start, *THREE[:2], until=LogTime(10_000.0), system=system)
        seconds[system] = time.process_time() - began
        rho, w = float(path.rho[-1, 0]), path.params["W1"][0]
        assert float(path.log_time[-1]) == pytest.approx(10_000, rel=1e-12)
        assert rho == pytest.approx(10_000, rel=1e-4)
        assert float(-w[1]) == pytest.approx(math.log(2) / 3, rel=1e-3)
        assert path.smoothed_margin_fall == 0
    assert max(seconds.values()) < 10  # about half a second each; the bound is for slow machines


@pytest.mark.parametrize("rho", [10.0, 1e4])
def test_dynamics_a_come_to_rest(rho: float) -> None:
    start = {"W1": rho * torch.tensor([[0.8, 0.6]], dtype=torch.float64)}
    path = stiff_flow(LINEAR, start, *THREE[:2], until=Rest(1e-10), system="fixed_norm")
    w = path.params["W1"][0]
    # With v = (cos a, sin a) and x_3 of weight e^{-2 rho} left out, the pulls of x_1 and x_2
    # balance where e^{-3 rho sin a} (1 - tan a) = 2 + tan a.
    tan = float(w[1] / w[0])
    assert -3 * float(w[1]) == pytest.approx(math.log((2 + tan) / (1 - tan)), rel=1e-6)
    assert float(path.rho[-1, 0]) == pytest.approx(rho, rel=1e-8)


def test_drift_of_what_is_conserved_falls_with_the_tolerance() -> None:
    net = Diagonal(d=2, num_layers=3)
    start = compose(torch.tensor([2.0, 1.0, 0.5]).double(), networks.directions(net.init(seed=0)))
    drifts = [
        stiff_flow(net, start, *THREE[:2], until=LogLoss(-50), rtol=rtol).norm_drift
        for rtol in (1e-6, 1e-9, 1e-12)
    ]
    assert drifts[0] > drifts[1] > drifts[2] and drifts[2] < 1e-10


def test_snapshots_and_the_first_record() -> None:
    path = stiff_flow(
        LINEAR, LINEAR.init(seed=0), *THREE[:2], until=LogLoss(-20), snapshots=[5, 10]
    )
    assert path.log_time[0] == -math.inf and bool((path.log_time.diff()[1:] > 0).all())
    assert bool((path.log_inverse_loss[path.snapshot_index] >= path.snapshot_level).all())
    at_once = stiff_flow(LINEAR, path.params, *THREE[:2], until=LogLoss(-5))
    assert len(at_once.rho) == 1 and at_once.reached


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"net": MLP(widths=(2, 3, 1))}, ValueError, 'net must have the activation "linear"'),
        ({"until": -5.0}, TypeError, "until must be a LogLoss"),
        ({"rtol": 0.0}, ValueError, "rtol must be"),
        ({"max_step": -1.0}, ValueError, "max_step must be"),
        ({"system": "C"}, ValueError, "system must be one of"),
        ({"max_evaluations": 3}, RuntimeError, "The solver stopped at l = .* are spent"),
        ({"params": {"W1": torch.zeros(1, 2).double()}}, ValueError, "params must have no layer"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_invalid_arguments(change: dict, error: type[Exception], message: str) -> None:
    net = change.get("net", LINEAR)
    options = {"net": net, "params": net.init(seed=0), "until": LogLoss(-10)} | change
    positional = [options.pop(name) for name in ("net", "params")]
    with pytest.raises(error, match=message):
        stiff_flow(*positional, *THREE[:2], **options)
