"""Fit M networks to a square loss at once: Adam from many starts, Levenberg-Marquardt on the best.

A network here is any object with ``init(seed=[...], scale=..., device=..., dtype=...)``, which
returns parameters ``dict[str, Tensor]`` with a leading axis M, and a pure ``net(params, x)``, which
returns (M, N) for them and (N,) for one network without that axis. The M networks differ in their
seeds only. Nothing loops over them: gradients, Jacobians, solutions of the normal equations and
losses are batched over M, and each network has its own damping and stops on its own. So a network
comes out as it would alone: to the last bit of Adam, and up to the rounding of batched matrix
products, which may depend on M, of Levenberg-Marquardt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from companion import _checks

Params = dict[str, Tensor]

MEMORY = 2e8  # bytes that Jacobians may take; more points than fit are taken in pieces
FIRST_DAMPING, MOST_DAMPING = 1e-3, 1e15  # relative to the diagonal of J^T J


class Model(Protocol):
    """What can be fitted."""

    def init(self, *, seed: Sequence[int], scale: float, device: Any, dtype: Any) -> Params: ...

    def __call__(self, params: Params, x: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Descent:
    """M networks after Levenberg-Marquardt.

    Args:
        params: Parameters, each with a leading axis M.
        loss: Mean square error on the training points, (M,).
        history: The loss after each trial step, (T + 1, M), from the start on; it never increases.
            A network that has stopped repeats its last value.
        steps: Trial steps of each network, accepted or not, (M,).
        converged: Whether each network met a tolerance before its steps ran out, (M,).
    """

    params: Params
    loss: Tensor
    history: Tensor
    steps: Tensor
    converged: Tensor


@dataclass(frozen=True)
class Fit:
    """The best few of M networks, sorted by training loss.

    Args:
        params: Parameters, each with a leading axis of the networks kept.
        loss: Mean square error on the training points, (keep,), in ascending order.
        history: The loss after each trial step of Levenberg-Marquardt, (T + 1, keep).
        steps: Those trial steps, (keep,).
        converged: Whether each network met a tolerance before its steps ran out, (keep,).
        seeds: The seeds of the networks kept.
        start_loss: Loss of all M networks when Adam was done, (M,), in the order given.
    """

    params: Params
    loss: Tensor
    history: Tensor
    steps: Tensor
    converged: Tensor
    seeds: tuple[int, ...]
    start_loss: Tensor

    @property
    def best(self) -> Params:
        """Parameters of the network with the smallest training loss, without a leading axis."""
        return {name: p[0] for name, p in self.params.items()}


def fit(
    net: Model,
    x: Tensor,
    y: Tensor,
    *,
    seeds: Sequence[int],
    scale: float = 1.0,
    adam_steps: int = 150,
    lr: float = 0.03,
    batch_size: int = 256,
    keep: int = 3,
    lm_steps: int = 80,
    ftol: float = 1e-4,
) -> Fit:
    """Train from all seeds with Adam, and the best few to the end with Levenberg-Marquardt.

    Everything runs on the device of ``x``.

    Args:
        net: The network, see the head of this module.
        x: Points, (N, d), in float64: the normal equations square the condition number.
        y: Targets, (N,).
        seeds: M seeds, one per start.
        scale: Scale of initialization, passed to ``net.init``.
        adam_steps, lr, batch_size: As in :func:`adam`.
        keep: How many networks go on after Adam, those with the smallest loss.
        lm_steps, ftol: As ``steps`` and ``ftol`` in :func:`levenberg_marquardt`.

    Raises:
        TypeError, ValueError: if data, seeds or numbers are not as said, or ``net`` does not
            return one number per network and point.

    >>> from companion.networks import MLP
    >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64)[:, None]
    >>> found = fit(MLP((1, 4, 1)), x, x[:, 0].abs(), seeds=range(8))
    >>> bool(found.loss[0] < 1e-20), len(found.seeds)
    (True, 3)
    """
    seeds = _checks.integers("seeds", seeds, at_least=0)
    keep = _checks.integer("keep", keep, at_least=1)
    if keep > len(seeds):
        raise ValueError(f"keep must be at most the number of seeds, {len(seeds)}, got {keep}.")
    _check_data(x, y)
    params = net.init(seed=seeds, scale=scale, device=x.device, dtype=x.dtype)
    params = adam(net, params, x, y, steps=adam_steps, lr=lr, batch_size=batch_size)
    start_loss = mean_square(net, params, x, y)
    order = _ranking(start_loss)[:keep]
    found = levenberg_marquardt(
        net, {name: p[order] for name, p in params.items()}, x, y, steps=lm_steps, ftol=ftol
    )
    rank = _ranking(found.loss)
    return Fit(
        params={name: p[rank] for name, p in found.params.items()},
        loss=found.loss[rank],
        history=found.history[:, rank],
        steps=found.steps[rank],
        converged=found.converged[rank],
        seeds=tuple(seeds[m] for m in order[rank].tolist()),
        start_loss=start_loss,
    )


def adam(
    net: Model,
    params: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    lr: float = 0.03,
    batch_size: int = 256,
) -> Params:
    """Return the parameters after ``steps`` steps of Adam on random parts of the points.

    All networks see the same parts, which do not depend on the seeds; the rate falls linearly to
    zero. Each network's own mean square error drives it, as if it were alone.

    Args:
        params: Parameters of M networks.
        x, y: Points (N, d) and targets (N,).
        steps: Number of steps; 0 returns the parameters as they are.
        lr: Rate of the first step.
        batch_size: Points per step, at most N.

    Raises:
        TypeError, ValueError: if an argument is not as said.
    """
    steps = _checks.integer("steps", steps, at_least=0)
    lr = _checks.positive("lr", lr)
    size = min(_checks.integer("batch_size", batch_size, at_least=1), _check_data(x, y))
    _check_output(net, params, x)
    generator = torch.Generator().manual_seed(0)
    leaves = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
    optimizer = torch.optim.Adam(leaves.values(), lr=lr)
    for step in range(steps):
        batch = torch.randperm(len(x), generator=generator)[:size].to(x.device)
        optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
        optimizer.zero_grad()
        with torch.enable_grad():
            (net(leaves, x[batch]) - y[batch]).square().mean(dim=-1).sum().backward()
        optimizer.step()
    return {name: p.detach() for name, p in leaves.items()}


def levenberg_marquardt(
    net: Model,
    params: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    *,
    steps: int = 100,
    ftol: float = 1e-6,
    gtol: float = 1e-10,
) -> Descent:
    """Minimize the mean square error of M networks by Levenberg-Marquardt, with M dampings.

    A trial step solves ``(J^T J + damping D) step = -J^T r``, D the largest diagonal of J^T J so
    far. It is taken if it lowers the loss, and the damping follows the ratio of actual to
    predicted decrease (Nielsen 1999). A network has converged when a step that was taken promised
    and brought a relative decrease of the loss of at most ``ftol``, when the cosine between its
    residual and every column of J is at most ``gtol`` or the loss is zero, or when no damping
    gives a decrease any more.

    Args:
        params: Parameters of M networks.
        x, y: Points (N, d) and targets (N,), in float64.
        steps: Most trial steps.
        ftol, gtol: Tolerances, at least 0.

    Raises:
        TypeError, ValueError: if an argument is not as said.

    >>> from companion.networks import MLP
    >>> line, x = MLP((1, 1)), torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    >>> found = levenberg_marquardt(line, line.init(seed=[0]), x, torch.tensor([2.0, 2.0]).double())
    >>> round(found.params["W1"].item(), 6), bool(found.converged)
    (1.2, True)
    """
    steps = _checks.integer("steps", steps, at_least=0)
    ftol = _checks.positive("ftol", ftol, zero=True)
    gtol = _checks.positive("gtol", gtol, zero=True)
    _check_data(x, y)
    _check_output(net, params, x)
    theta = flatten(params)
    loss, gradient, hessian = _normal_equations(net, params, x, y)
    scale = torch.zeros_like(theta)
    damping, factor = torch.full_like(loss, FIRST_DAMPING), torch.full_like(loss, 2.0)
    taken = torch.zeros_like(loss, dtype=torch.long)
    converged = _is_stationary(loss, gradient, hessian, gtol)
    history = [loss.clone()]
    for _ in range(steps):
        a = (~converged & torch.isfinite(loss)).nonzero().squeeze(-1)  # those still under way
        if not len(a):
            break
        scale[a] = torch.maximum(scale[a], hessian[a].diagonal(dim1=1, dim2=2))
        step, promised = _damped_step(gradient[a], hessian[a], damping[a], scale[a])
        trial = theta[a] + step
        new = mean_square(net, unflatten(trial, params), x, y)
        better, ratio = new < loss[a], (loss[a] - new) / promised
        small = better & (torch.maximum(loss[a] - new, promised) <= ftol * loss[a])
        damping[a], factor[a] = _next_damping(damping[a], factor[a], better, ratio)
        taken[a] += 1
        moved = a[better]
        theta[moved], loss[moved] = trial[better], new[better]
        if len(moved):
            _, gradient[moved], hessian[moved] = _normal_equations(
                net, unflatten(theta[moved], params), x, y
            )
        converged[a] = small | (damping[a] > MOST_DAMPING)
        converged |= _is_stationary(loss, gradient, hessian, gtol)
        history.append(loss.clone())
    return Descent(unflatten(theta, params), loss, torch.stack(history), taken, converged)


def jacobian(net: Model, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Return the derivatives of f at every point by every parameter, (M, N, P).

    Parameters are in the order of :func:`flatten`. Differentiates by ``torch.func``.

    >>> from companion.networks import MLP
    >>> line, x = MLP((2, 1)), torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    >>> jacobian(line, line.init(seed=[0]), x)
    tensor([[[1., 2.]]], dtype=torch.float64)
    """

    def value(one: Params, point: Tensor) -> Tensor:
        return net(one, point[None])[0]

    each_point = torch.func.vmap(torch.func.grad(value), in_dims=(None, 0))
    columns = torch.func.vmap(each_point, in_dims=(0, None))(dict(params), x)
    return torch.cat([c.flatten(2) if c.ndim > 2 else c[..., None] for c in columns.values()], -1)


def mean_square(net: Model, params: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Return the mean square error of each of M networks on x (N, d), y (N,); shape (M,)."""
    with torch.no_grad():
        return (net(params, x) - y).square().mean(dim=-1)


def relative_error(f: Tensor, y: Tensor) -> Tensor:
    """Return rms(f - y) / std(y) over the last axis: 1 for the best constant, 0 for an exact fit.

    Args:
        f: Values of a model, (..., N).
        y: Targets, (N,).

    Raises:
        TypeError, ValueError: if a tensor is not of floating point, the numbers of points differ,
            or all targets are equal.

    >>> y = torch.tensor([0.0, 2.0])
    >>> relative_error(torch.tensor([1.0, 1.0]), y)
    tensor(1.)
    """
    _checks.floating("f", f)
    if _checks.floating("y", y).ndim != 1 or f.shape[-1:] != y.shape:
        raise ValueError(
            f"f (..., N) and y (N,) must have as many points, got {tuple(f.shape)} and "
            f"{tuple(y.shape)}."
        )
    deviation = y.std(unbiased=False)
    if not deviation > 0:
        raise ValueError("y must not be constant.")
    return (f - y).square().mean(dim=-1).sqrt() / deviation


def flatten(params: Mapping[str, Tensor]) -> Tensor:
    """Return the parameters of M networks as the rows of a matrix, (M, P).

    >>> flatten({"W": torch.zeros(5, 2, 3), "c0": torch.ones(5)}).shape
    torch.Size([5, 7])
    """
    return torch.cat([p.reshape(len(p), -1) for p in params.values()], dim=1)


def unflatten(theta: Tensor, like: Mapping[str, Tensor]) -> Params:
    """Return rows theta (M, P) as parameters with the names and shapes of ``like``.

    The number of networks may differ from that of ``like``.
    """
    shapes = [p.shape[1:] for p in like.values()]
    parts = theta.split([shape.numel() for shape in shapes], dim=1)
    return {
        name: part.reshape(len(theta), *shape)
        for name, part, shape in zip(like, parts, shapes, strict=True)
    }


def _normal_equations(
    net: Model, params: Mapping[str, Tensor], x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss (M,), J^T r / N (M, P) and J^T J / N (M, P, P), summed over pieces of the points."""
    num_networks, num_params = flatten(params).shape
    hessian = x.new_zeros(num_networks, num_params, num_params)
    gradient, loss = x.new_zeros(num_networks, num_params), x.new_zeros(num_networks)
    # A Jacobian, its parts before they are joined, and what autograd holds: about three times J.
    size = max(1, int(MEMORY / (3 * x.element_size() * num_networks * num_params)))
    for points, targets in zip(x.split(size), y.split(size), strict=True):
        J = jacobian(net, params, points)  # noqa: N806
        with torch.no_grad():
            r = net(params, points) - targets
            hessian += J.mT @ J
            gradient += (J.mT @ r[..., None]).squeeze(-1)
            loss += r.square().sum(dim=-1)
    return loss / len(x), gradient / len(x), hessian / len(x)


def _damped_step(
    gradient: Tensor, hessian: Tensor, damping: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """The step of each network, and the decrease of its loss that the linear model promises."""
    floor = 1e-12 * scale.amax(dim=1, keepdim=True)  # a parameter may not matter at all
    weight = damping[:, None] * scale.clamp(min=floor)
    factor, failed = torch.linalg.cholesky_ex(hessian + torch.diag_embed(weight))
    step = -torch.cholesky_solve(gradient[..., None], factor).squeeze(-1)
    step[failed > 0] = torch.nan  # no decrease: the damping will grow
    return step, (step * (weight * step - gradient)).sum(dim=1)


def _next_damping(
    damping: Tensor, factor: Tensor, better: Tensor, ratio: Tensor
) -> tuple[Tensor, Tensor]:
    """Nielsen's rule: down to a third after a good step, up ever faster after bad ones."""
    shrink = (1 - (2 * ratio - 1) ** 3).clamp(min=1 / 3, max=2.0)
    return (
        torch.where(better, damping * shrink, damping * factor),
        torch.where(better, torch.full_like(factor, 2.0), 2 * factor),
    )


def _is_stationary(loss: Tensor, gradient: Tensor, hessian: Tensor, gtol: float) -> Tensor:
    """Whether the residual is orthogonal to the columns of J, up to ``gtol`` in the cosine."""
    lengths = (hessian.diagonal(dim1=1, dim2=2) * loss[:, None]).sqrt()
    return torch.isfinite(loss) & (gradient.abs() <= gtol * lengths).all(dim=1)


def _ranking(loss: Tensor) -> Tensor:
    """Indices in the order of the losses, those that are not finite last."""
    return torch.where(torch.isfinite(loss), loss, torch.inf).argsort(stable=True)


def _check_data(x: Tensor, y: Tensor) -> int:
    """Raise unless x (N, d) and y (N,) are finite and in float64; return N."""
    _checks.finite("x", x)
    _checks.finite("y", y)
    if x.ndim < 2 or not len(x) or y.shape != x.shape[:1]:
        raise ValueError(
            f"x and y must have shapes (N, d) and (N,) with N >= 1, got {tuple(x.shape)} and "
            f"{tuple(y.shape)}."
        )
    if x.dtype != torch.float64:
        raise ValueError(f"x must be in float64, got {x.dtype}.")
    _checks.same_kind("y", y, "x", x)
    return len(x)


def _check_output(net: Model, params: Mapping[str, Tensor], x: Tensor) -> None:
    """Raise unless the parameters are those of M networks with one output each."""
    leading = {len(p) if p.ndim else 0 for p in params.values()}
    if len(leading) != 1:
        raise ValueError(f"params must all have one leading axis M, got lengths {leading}.")
    with torch.no_grad():
        shape = tuple(net(params, x[:1]).shape)
    if shape != (leading.pop(), 1):
        raise ValueError(
            f"net must return one number per network and point, (M, N), got {shape} for N = 1."
        )
