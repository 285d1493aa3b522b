"""Many flows at once against the exact integrator, one network at a time."""

from __future__ import annotations

import pytest
import torch

from companion import data
from companion.dynamics import flow, theorem_4
from companion.networks import MLP, member


def test_agrees_with_the_flow() -> None:
    points, net = data.three_points(), MLP(widths=(2, 3, 1))
    start = net.init(seed=[0, 1, 2])
    found = theorem_4.many_flows(net, start, points.x, points.y, until=100.0)
    for m in range(3):
        if not bool(found.arrived[m]):
            continue
        path = flow.gradient_flow(
            net, member(start, m), points.x, points.y, until=flow.LogLoss(-100)
        )
        assert float(found.hard_margin[m]) == pytest.approx(float(path.hard_margin[-1]), rel=0.01)
    assert found.arrived.any()


def test_a_network_does_not_depend_on_its_company() -> None:
    points, net = data.three_points(), MLP(widths=(2, 2, 1))
    start = net.init(seed=[3, 4])
    both = theorem_4.many_flows(net, start, points.x, points.y, until=20.0)
    alone = theorem_4.many_flows(net, net.init(seed=[4]), points.x, points.y, until=20.0)
    torch.testing.assert_close(both.hard_margin[1:], alone.hard_margin)


def test_dead_networks_stay() -> None:
    points, net = data.three_points(), MLP(widths=(2, 1, 1))
    start = {"W1": torch.tensor([[[-1.0, 0.0]]]).double(), "W2": torch.ones(1, 1, 1).double()}
    found = theorem_4.many_flows(net, start, points.x, points.y, until=20.0)
    assert not found.arrived.any()
    torch.testing.assert_close(found.params["W1"], start["W1"])


def test_bad_input() -> None:
    points, net = data.three_points(), MLP(widths=(2, 1))
    with pytest.raises(ValueError, match="ensemble"):
        theorem_4.many_flows(net, net.init(seed=0), points.x, points.y, until=1.0)
    with pytest.raises(ValueError, match="increment"):
        theorem_4.many_flows(net, net.init(seed=[0]), points.x, points.y, until=1.0, increment=0.0)
