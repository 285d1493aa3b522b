"""Hessians of a network with 2,015 weights, trained on digits 3 and 8, in float64.

``hessian_full``: the whole matrix and its eigenvalues, against a loop that differentiates the
gradient once per weight, with the same eigenvalue routine. ``hessian_lanczos``: the 20 largest and
5 smallest eigenvalues, against SciPy's eigsh on the linear operator of curvlinops, with the same
tolerance; both must agree with the full spectrum to 1e-8 of the largest eigenvalue.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TypeVar

import curvlinops
import numpy as np
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor

from benchmarks.comparison import Comparison
from companion import data, networks, training
from companion.landscape import hessian
from companion.networks import MLP, Params

T = TypeVar("T")

LARGEST, SMALLEST = 20, 5
AGREEMENT = 1e-8  # of the largest eigenvalue


def run() -> dict[str, Comparison]:
    """Measure both on one thread."""
    net, params, x, y = _problem()
    spent, full = _timed(lambda: hessian.spectrum(net, params, x, y, loss="logistic"), repeats=5)
    slow, expected = _timed(lambda: _row_by_row(net, params, x, y), repeats=1)
    scale = torch.exp(torch.tensor(full.log_scale, dtype=torch.float64))
    _require_agreement("spectrum", scale * full.eigenvalues, expected)

    def ours() -> hessian.Extremes:
        return hessian.extremes(
            net, params, x, y, largest=LARGEST, smallest=SMALLEST, loss="logistic"
        )

    quick, ends = _timed(ours, repeats=5)
    found = torch.cat([ends.smallest, ends.largest.flip(0)])
    reference = torch.cat([expected[:SMALLEST], expected[-LARGEST:]])
    _require_agreement("our ends", scale * found, reference)
    peer, theirs = _timed(lambda: _curvlinops(net, params, x, y), repeats=3)
    _require_agreement("the ends of curvlinops", theirs, reference)
    where = f"{net.num_params:,} weights, {len(x)} images"
    return {
        "hessian_full": Comparison.of_costs(
            spent, slow, unit="seconds", bar=5, note=f"{where}: matrix and all its eigenvalues"
        ),
        "hessian_lanczos": Comparison.of_costs(
            quick,
            peer,
            unit="seconds",
            bar=2,
            note=f"{where}: {LARGEST} largest, {SMALLEST} smallest, {ends.num_products} products",
        ),
    }


def _problem() -> tuple[MLP, Params, Tensor, Tensor]:
    x, y = data.digits(classes=(3, 8))
    net = MLP(widths=(64, 31, 1))
    done = training.Until(error=0.0, log_loss=-5.0)
    run = training.train(
        net, x, y, seeds=[0], lr=1.0, batch_size=32, steps=4000, loss="logistic", until=done
    )
    return net, networks.member(run.params, 0), x, y


def _timed(function: Callable[[], T], *, repeats: int) -> tuple[float, T]:
    """Median of the seconds, after one call for warming up where there are several."""
    if repeats > 1:
        function()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def _row_by_row(net: MLP, params: Params, x: Tensor, y: Tensor) -> Tensor:
    leaves = [W.detach().requires_grad_() for W in params.values()]
    f = net(dict(zip(params, leaves, strict=True)), x)
    loss = torch.nn.functional.softplus(-y * f).mean()
    gradient = torch.autograd.grad(loss, leaves, create_graph=True)
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(entry, leaves, retain_graph=True)])
        for entry in torch.cat([g.flatten() for g in gradient])
    ]
    return torch.linalg.eigvalsh(torch.stack(rows))


def _curvlinops(net: MLP, params: Params, x: Tensor, y: Tensor) -> Tensor:
    layers: list[torch.nn.Module] = []
    for name, W in params.items():
        layer = torch.nn.Linear(W.shape[1], W.shape[0], bias=False, dtype=W.dtype)
        layer.weight.data = W.clone()
        layers += [layer] if name == net.layer_names[-1] else [layer, torch.nn.ReLU()]
    module = torch.nn.Sequential(*layers)
    operator = curvlinops.HessianLinearOperator(
        module,
        torch.nn.BCEWithLogitsLoss(),
        list(module.parameters()),
        [(x, (y[:, None] + 1) / 2)],
        check_deterministic=False,
    ).to_scipy()
    options = {"tol": hessian.TOLERANCE, "return_eigenvectors": False}
    largest = eigsh(operator, k=LARGEST, which="LA", **options)
    smallest = eigsh(operator, k=SMALLEST, which="SA", **options)
    return torch.from_numpy(np.concatenate([np.sort(smallest), np.sort(largest)]))


def _require_agreement(name: str, found: Tensor, expected: Tensor) -> None:
    error = float((found - expected).abs().max() / expected.abs().max())
    if not error <= AGREEMENT:
        raise RuntimeError(f"{name}: error {error:.1e} of the largest eigenvalue.")
