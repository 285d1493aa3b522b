"""Balance of the layers: what the gradient flow conserves, and what training does to it.

Each layer enters a homogeneous network with degree one, so the gradient of the loss has the same
product ``<W_k, dL/dW_k>`` in every layer. Along the flow the differences rho_k^2 - rho_j^2 are
therefore constant (PNAS 2020, Lemma 1). Every update obeys

    change of rho_k^2 = 2 <W_k, dW_k> + ||dW_k||^2,

and a method keeps the law as far as its first term does not depend on the layer. This module
measures both terms along ``torch.optim``'s methods and predicts what they leave of the law.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from companion import _checks
from companion.dynamics.trajectory import margins_of
from companion.networks import MLP, Network, Params

__all__ = [
    "Descent",
    "balance_matrices",
    "descend",
    "leading_drift",
    "linear_flow",
    "norm_differences",
    "norm_rate",
    "predicted_differences",
    "unit_balance",
]

Optimizer = Callable[[list[Tensor]], torch.optim.Optimizer]


def norm_rate(net: Network, params: Params, x: Tensor, y: Tensor) -> float:
    """Return ``d rho_k^2 / dt = (2/N) sum_n y_n f(W; x_n) exp(-y_n f(W; x_n))``.

    The same for every layer k, along the flow of the mean L of the exponential losses.

    Args:
        net: Network with one output.
        params: Weights, one network.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).

    Raises:
        TypeError, ValueError: for data or parameters that do not fit.

    Source: PNAS 2020, Lemma 1.

    >>> from companion.networks import MLP
    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> rate = norm_rate(MLP(widths=(1, 1, 1)), {"W1": one, "W2": one}, one, one[0])
    >>> round(rate, 6)  # 2 / e
    0.735759
    """
    margins = margins_of(net, params, x, y)
    return 2 * float((margins * torch.exp(-margins)).mean())


def norm_differences(params: Params) -> Tensor:
    """Return ``rho_k^2 - rho_1^2``, shape (K,); its first entry is 0.

    Raises:
        ValueError: if params holds no layer.

    Source: PNAS 2020, Lemma 1: constant along the gradient flow.

    >>> norm_differences({"W1": torch.tensor([[3.0, 4.0]]).T, "W2": torch.tensor([[1.0, 2.0]])})
    tensor([  0., -20.])
    """
    if not params:
        raise ValueError("params must hold at least one layer, got none.")
    squares = _squares(params)
    return squares - squares[0]


def unit_balance(net: MLP, params: Params) -> tuple[Tensor, ...]:
    """Return ``||row j of W_k||^2 - ||column j of W_{k+1}||^2`` for every hidden unit j.

    The weights that enter a unit against those that leave it. With ReLU, leaky ReLU or no
    activation, scaling the former by c > 0 and the latter by 1/c does not change f, so each number
    is constant along the gradient flow; their sum over layer k is rho_k^2 - rho_{k+1}^2.

    Returns:
        One tensor (h_k,) per hidden layer k = 1 .. K - 1.

    Raises:
        TypeError, ValueError: if net is no MLP or the parameters do not fit.

    Source: Du, Hu & Lee 2018, Thm 2.1.

    >>> W = {"W1": torch.tensor([[3.0], [0.0]]), "W2": torch.tensor([[1.0, 2.0]])}
    >>> unit_balance(MLP(widths=(1, 2, 1)), W)
    (tensor([ 8., -4.]),)
    """
    return tuple(
        lower.square().sum(dim=1) - upper.square().sum(dim=0)
        for lower, upper in _pairs(net, params)
    )


def balance_matrices(net: MLP, params: Params) -> tuple[Tensor, ...]:
    """Return ``W_k W_k' - W_{k+1}' W_{k+1}`` for every hidden layer.

    Constant along the gradient flow of a linear network, whose hidden layers may be rotated and
    sheared without changing f. The diagonal is :func:`unit_balance`, the trace the difference
    of the squared norms.

    Returns:
        One symmetric matrix (h_k, h_k) per hidden layer k = 1 .. K - 1.

    Raises:
        TypeError, ValueError: as :func:`unit_balance`.

    Source: Arora, Cohen & Hazan 2018, proof of Thm 1; Du, Hu & Lee 2018, Thm 2.2.
    """
    return tuple(lower @ lower.mT - upper.mT @ upper for lower, upper in _pairs(net, params))


@dataclass(frozen=True, eq=False)
class Descent:
    """What :func:`descend` measured in T steps; all in the units of the weights squared.

    Attributes:
        squares: (T + 1, K) rho_k^2 before the first and after each step.
        pairings: (T, K) <W_k, dW_k>, weights before the step with their change.
        steps: (T, K) ||dW_k||^2.
        gradients: (T, K) ||dL/dW_k||^2 of the (mini-batch) loss that the step saw.
        losses: (T,) that loss, the mean of the exponential losses.
        params: Weights at the end.
    """

    squares: Tensor
    pairings: Tensor
    steps: Tensor
    gradients: Tensor
    losses: Tensor
    params: Params

    @property
    def differences(self) -> Tensor:
        """(T + 1, K) rho_k^2 - rho_1^2."""
        return _from_first(self.squares)

    @property
    def drift(self) -> Tensor:
        """(T + 1, K) change of rho_k^2 - rho_1^2 since the start."""
        return self.differences - self.differences[0]


def descend(
    net: Network,
    params: Params,
    x: Tensor,
    y: Tensor,
    optimizer: Optimizer,
    *,
    steps: int,
    batch_size: int | None = None,
    seed: int = 0,
) -> Descent:
    """Minimize the mean of the exponential losses with a method of ``torch.optim``.

    Args:
        net: Network with one output.
        params: Weights to start from, one network; they are left as they are.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        optimizer: Builds the method from the list of the layers, such as
            ``lambda W: torch.optim.SGD(W, lr=0.1)``.
        steps: Number of steps T.
        batch_size: Examples per step, drawn with replacement; None takes all N.
        seed: Of the batches.

    Raises:
        TypeError, ValueError: for arguments that do not fit.
        FloatingPointError: if the loss overflows, with the step at which it does.

    >>> from companion import data, networks
    >>> points, net = data.three_points(), networks.MLP(widths=(2, 2, 1), activation="linear")
    >>> gd = lambda W: torch.optim.SGD(W, lr=0.1)
    >>> run = descend(net, net.init(seed=0), points.x, points.y, gd, steps=50)
    >>> torch.allclose(run.drift[-1], predicted_differences(run, lr=0.1)[-1] - run.differences[0])
    True
    """
    margins_of(net, params, x, y)
    steps = _checks.integer("steps", steps, at_least=1)
    if batch_size is not None:
        batch_size = _checks.integer("batch_size", batch_size, at_least=1)
    generator = torch.Generator().manual_seed(_checks.integer("seed", seed, at_least=0))
    W = {name: W_k.detach().clone() for name, W_k in params.items()}
    method = optimizer(list(W.values()))
    rows: dict[str, list[Tensor]] = {"pairings": [], "steps": [], "gradients": [], "losses": []}
    squares = [_squares(W)]
    for step in range(steps):
        batch = slice(None)
        if batch_size is not None:
            batch = torch.randint(len(y), (batch_size,), generator=generator)
        f, pullback = net.vjp(W, x[batch])
        each = torch.exp(-y[batch] * f)
        if not bool(torch.isfinite(each).all()):
            raise FloatingPointError(f"The loss overflowed at step {step}; lower the step size.")
        gradient = pullback(-y[batch] * each / len(each))
        before = {name: W_k.clone() for name, W_k in W.items()}
        for name, W_k in W.items():
            W_k.grad = gradient[name]
        method.step()
        moved = {name: W[name] - before[name] for name in W}
        rows["pairings"].append(torch.stack([(before[k] * moved[k]).sum() for k in W]))
        rows["steps"].append(_squares(moved))
        rows["gradients"].append(_squares(gradient))
        rows["losses"].append(each.mean())
        squares.append(_squares(W))
    for W_k in W.values():
        W_k.grad = None
    return Descent(
        squares=torch.stack(squares), **{k: torch.stack(v) for k, v in rows.items()}, params=W
    )


def predicted_differences(
    run: Descent, *, lr: float, momentum: float = 0.0, weight_decay: float = 0.0
) -> Tensor:
    """Predict rho_k^2 - rho_1^2 along SGD with momentum m and weight decay lambda.

    With ``b <- m b + G + lambda W`` and ``W <- W - eta b``, let D, C and B be the differences
    between two layers of rho^2, of <W, b> and, after the update of b, of ||b||^2. Since <W, G> is
    the same in all layers, exactly

        E = m C + lambda D,   D <- D - 2 eta E + eta^2 B,   C <- E - eta B.

    With m = lambda = 0 this is ``D <- D + eta^2 (||G_k||^2 - ||G_1||^2)``. The weights enter
    through the start and the lengths of the steps only. Mini-batches change nothing.

    Args:
        run: The run, made by ``torch.optim.SGD`` with these three numbers.
        lr: Step size eta.
        momentum: m, in [0, 1), without dampening and not Nesterov's.
        weight_decay: lambda, of the penalty (lambda / 2) ||W||^2.

    Returns:
        (T + 1, K), to be compared with ``run.differences``.

    Raises:
        TypeError, ValueError: for numbers out of their range.
    """
    lr, momentum = _checks.positive("lr", lr), _momentum(momentum)
    weight_decay = _checks.positive("weight_decay", weight_decay, zero=True)
    B = _from_first(run.steps) / lr**2  # noqa: N806 (a matrix)
    D, C = run.differences[0], torch.zeros_like(run.squares[0])  # noqa: N806
    predicted = [D]
    for B_t in B:
        E = momentum * C + weight_decay * D  # noqa: N806
        D, C = D - 2 * lr * E + lr**2 * B_t, E - lr * B_t  # noqa: N806
        predicted.append(D)
    return torch.stack(predicted)


def leading_drift(run: Descent, *, lr: float, momentum: float = 0.0) -> Tensor:
    """Return ``eta^2 (1+m)/(1-m)^3 sum_t (||G_k||^2 - ||G_1||^2)``, the drift to leading order.

    From the gradients alone: the velocity is taken as ``b = G / (1 - m)``, as it is where the
    gradient changes little in 1 / (1 - m) steps. Exact for m = 0. Next to gradient descent with
    the step eta / (1 - m), which covers the same ground, momentum drifts (1+m)/(1-m) times as far.

    Returns:
        (T + 1, K), to be compared with ``run.drift``.

    Raises:
        TypeError, ValueError: for numbers out of their range.
    """
    lr, m = _checks.positive("lr", lr), _momentum(momentum)
    sums = torch.cumsum(_from_first(run.gradients), dim=0)
    return lr**2 * (1 + m) / (1 - m) ** 3 * torch.cat([torch.zeros_like(sums[:1]), sums])


def linear_flow(
    net: Network,
    params: Params,
    x: Tensor,
    y: Tensor,
    *,
    times: Sequence[float],
    weight_decay: float = 0.0,
    rtol: float = 1e-13,
) -> Params:
    """Integrate ``dW/dt = -grad (L + (lambda/2) ||W||^2)`` of a linear network, t as in PNAS Eq. 1.

    L is the mean of the exponential losses. SciPy's DOP853 with a tight tolerance and no
    projection: what is conserved here is conserved by the equation.

    Args:
        net: Network with one output and activation "linear".
        params: Weights at t = 0, one network.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        times: Ascending times, the last one positive.
        weight_decay: lambda, at least 0.
        rtol: Relative tolerance; the absolute one is a tenth of it.

    Returns:
        The weights at these times, with a leading axis (T,).

    Raises:
        TypeError, ValueError: for arguments that do not fit.
        RuntimeError: if SciPy stops early.
    """
    from scipy.integrate import solve_ivp

    _checks.choice("net.activation", net.activation, ("linear",))
    margins_of(net, params, x, y)
    decay = _checks.positive("weight_decay", weight_decay, zero=True)
    at = [_checks.positive(f"times[{i}]", t, zero=True) for i, t in enumerate(times)]
    if not at or at[-1] <= 0 or any(a >= b for a, b in itertools.pairwise(at)):
        raise ValueError(f"times must ascend to a positive time, got {at}.")
    sizes = [W_k.numel() for W_k in params.values()]

    def unflatten(flat: Tensor) -> Params:
        parts = flat.split(sizes, dim=-1)
        return {
            k: part.reshape(*flat.shape[:-1], *W_k.shape)
            for (k, W_k), part in zip(params.items(), parts, strict=True)
        }

    def slope(_: float, flat: np.ndarray) -> np.ndarray:
        W = unflatten(torch.from_numpy(flat))
        f, pullback = net.vjp(W, x)
        ascent = pullback(y * torch.exp(-y * f) / len(y))
        return _flat(ascent).numpy() - decay * flat

    solution = solve_ivp(
        slope, (0.0, at[-1]), _flat(params).numpy(), "DOP853", t_eval=at, rtol=rtol, atol=rtol / 10
    )
    if not solution.success:
        raise RuntimeError(f"The integration stopped: {solution.message}")
    return unflatten(torch.from_numpy(np.ascontiguousarray(solution.y.T)))


def _momentum(value: float) -> float:
    number = _checks.positive("momentum", value, zero=True)
    if number >= 1:
        raise ValueError(f"momentum must be below 1, got {value!r}.")
    return number


def _squares(params: Params) -> Tensor:
    return torch.stack([W_k.square().sum() for W_k in params.values()])


def _flat(params: Params) -> Tensor:
    return torch.cat([W_k.detach().reshape(-1) for W_k in params.values()])


def _from_first(squares: Tensor) -> Tensor:
    return squares - squares[:, :1]


def _pairs(net: MLP, params: Params) -> list[tuple[Tensor, Tensor]]:
    """The weights that enter and leave each hidden layer."""
    if not isinstance(net, MLP):
        raise TypeError(f"net must be an MLP, got {type(net).__name__}.")
    shapes = {name: tuple(W_k.shape) for name, W_k in params.items()}
    if shapes != net.shapes:
        raise ValueError(f"params must have the shapes {net.shapes}, got {shapes}.")
    return list(itertools.pairwise(params.values()))
