"""Existence without learning: networks with drawn inner weights and solved outer weights.

The units sigma(w_q . x + b_q) are drawn at random, and only the outer weights are fitted, by
linear least squares. What this reaches is an upper bound on the best error of a network with as
many units, free of the luck of training. In a tree every node is fitted to its constituent, which
it is *given*: that a network exists does not say that it can be learned from values of f.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from companion import _checks
from companion.approximation.compositional import Compositional, evaluate
from companion.least_squares import relative_error

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "softplus": torch.nn.functional.softplus,
    "square": torch.square,
}

PAD = 1.1  # a node is fitted on a box a little larger than [-1, 1]^d: what it reads is inexact


@dataclass(frozen=True)
class RandomFeatures:
    """M sets of Q units ``sigma(w_q . x + b_q)`` with drawn weights.

    Args:
        weights: Inner weights w_q, (M, Q, n).
        biases: b_q, (M, Q).
        activation: "tanh", "relu", "softplus" or "square".
    """

    weights: Tensor
    biases: Tensor
    activation: str = "tanh"

    @classmethod
    def draw(
        cls,
        num_vars: int,
        units: int,
        *,
        seeds: Sequence[int],
        scale: float = 3.0,
        activation: str = "tanh",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> RandomFeatures:
        """Draw ``w_q ~ scale N(0, I / n)`` and ``b_q`` uniform in [-scale, scale].

        Args:
            num_vars: n.
            units: Q, the number of units in each set.
            seeds: M seeds, one per set. They are used on the CPU in float64, so a seed means the
                same units everywhere.
            scale: Size of the inner weights, per unit of the inputs.
            activation: One of :data:`ACTIVATIONS`.
            device: Where the weights go; default the CPU.
            dtype: Floating-point type; default float64.

        Raises:
            TypeError, ValueError: if an argument is out of range.
        """
        n = _checks.integer("num_vars", num_vars, at_least=1)
        Q = _checks.integer("units", units, at_least=1)
        _checks.positive("scale", scale)
        _checks.choice("activation", activation, ACTIVATIONS)
        weights, biases = [], []
        for seed in _checks.integers("seeds", seeds, at_least=0):
            generator = torch.Generator().manual_seed(seed)
            w = torch.randn(Q, n, generator=generator, dtype=torch.float64)
            b = 2 * torch.rand(Q, generator=generator, dtype=torch.float64) - 1
            weights.append(scale / math.sqrt(n) * w)
            biases.append(scale * b)
        kind = {"device": device, "dtype": dtype or torch.float64}
        return cls(torch.stack(weights).to(**kind), torch.stack(biases).to(**kind), activation)

    def __call__(self, x: Tensor) -> Tensor:
        """Return a constant and the Q units at points x (N, n) or (M, N, n); (M, N, 1 + Q).

        Raises:
            TypeError, ValueError: if the shape of x does not fit.
        """
        M, Q, n = self.weights.shape
        _checks.floating("x", x)
        if x.shape[-1:] != (n,) or not (x.ndim == 2 or (x.ndim == 3 and len(x) == M)):
            raise ValueError(f"x must have shape (N, {n}) or ({M}, N, {n}), got {tuple(x.shape)}.")
        z = x @ self.weights.mT + self.biases[:, None]  # (M, N, Q)
        units = ACTIVATIONS[self.activation](z)
        return torch.cat([torch.ones_like(units[..., :1]), units], dim=-1)

    def solve(
        self, x: Tensor, y: Tensor, *, units: Sequence[int], ridge: float = 1e-9
    ) -> list[Tensor]:
        """Fit the outer weights of the first q units, for every q in ``units``, at once.

        One QR factorization serves all q, since the units are nested. A little ridge,
        ``ridge^2 |c|^2`` added to the mean square, keeps the outer weights finite where the units
        are numerically dependent.

        Args:
            x: Points, (N, n) or (M, N, n).
            y: Values, (N,) or (M, N).
            units: Numbers of units, each at most Q.
            ridge: Per unit of the root mean square error; it bounds the accuracy from below.

        Returns:
            For each q the outer weights (M, 1 + q), the constant first.

        Raises:
            TypeError, ValueError: if an argument is out of range or shapes do not fit.
        """
        Q = self.weights.shape[1]
        units = _checks.integers("units", units, at_least=1)
        if max(units) > Q:
            raise ValueError(f"units must be at most {Q}, got {max(units)}.")
        A = self(x)  # (M, N, 1 + Q)
        M, N, width = A.shape
        if y.shape not in ((N,), (M, N)):
            raise ValueError(f"y must have shape {(N,)} or {(M, N)}, got {tuple(y.shape)}.")
        size = _checks.positive("ridge", ridge) * math.sqrt(N)
        below = size * torch.eye(width, dtype=A.dtype, device=A.device).expand(M, -1, -1)
        target = torch.zeros(M, N + width, 1, dtype=A.dtype, device=A.device)
        target[:, :N, 0] = y
        basis, R = torch.linalg.qr(torch.cat([A, below], dim=1))
        z = basis.mT @ target  # (M, 1 + Q, 1)
        return [
            torch.linalg.solve_triangular(
                R[:, : q + 1, : q + 1], z[:, : q + 1], upper=True
            ).squeeze(-1)
            for q in units
        ]


@dataclass(frozen=True)
class Scaling:
    """Error against the number of units.

    Args:
        units: Units of the whole network, (U,).
        error: Root mean square error on fresh points over the target's standard deviation, (U,).
        sup: Largest error on the fresh points, (U,), in units of the target.
    """

    units: Tensor
    error: Tensor
    sup: Tensor

    @property
    def slope(self) -> float:
        """Slope of log error against log units, by least squares: -s means error ~ units^-s."""
        return loglog_slope(self.units, self.error)


def loglog_slope(x: Tensor | Sequence[float], y: Tensor | Sequence[float]) -> float:
    """Return the slope of log y against log x, by least squares.

    Raises:
        ValueError: if there are fewer than two points, or a number is not positive.

    >>> round(loglog_slope([1, 2, 4], [1.0, 0.25, 0.0625]), 12)
    -2.0
    """
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(f"x and y must hold as many numbers, two or more, got {len(a)}, {len(b)}.")
    if not ((a > 0) & (b > 0)).all():
        raise ValueError("x and y must be positive, got a number that is not.")
    return float(np.polyfit(np.log(a), np.log(b), 1)[0])


def uniform_points(
    num_points: int,
    num_vars: int,
    *,
    seed: int,
    reach: float = 1.0,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw points uniform in [-reach, reach]^n, (N, n) float64, on the CPU or ``device``.

    They are drawn on the CPU in any case, so a seed means the same points everywhere.

    Raises:
        TypeError, ValueError: if an argument is out of range.
    """
    N = _checks.integer("num_points", num_points, at_least=1)
    n = _checks.integer("num_vars", num_vars, at_least=1)
    generator = torch.Generator().manual_seed(_checks.integer("seed", seed, at_least=0))
    points = torch.rand(N, n, generator=generator, dtype=torch.float64).to(device)
    return _checks.positive("reach", reach) * (2 * points - 1)


def shallow(
    f: Callable[[Tensor], Tensor],
    num_vars: int,
    *,
    units: Sequence[int],
    seeds: Sequence[int],
    scale: float = 3.0,
    num_points: int = 5000,
    ridge: float = 1e-9,
    device: torch.device | str | None = None,
) -> Scaling:
    """Fit a function on [-1, 1]^n by one layer of random units, for several numbers of units.

    Args:
        f: Maps points (N, n) to values (N,).
        num_vars: n.
        units: Numbers of units, increasing.
        seeds: One fit per seed; the errors are geometric means over them.
        scale: Size of the inner weights.
        num_points: N, both to fit on and, fresh ones, to test on.
        ridge: See :meth:`RandomFeatures.solve`.
        device: Where to compute; default the CPU.

    Raises:
        TypeError, ValueError: if an argument is out of range.

    >>> scaling = shallow(lambda x: x[:, 0] * x[:, 1], 2, units=[8, 128], seeds=[0])
    >>> bool(scaling.error[1] < 1e-4 < scaling.error[0])
    True
    """
    errors = []
    for seed in _checks.integers("seeds", seeds, at_least=0):
        features = RandomFeatures.draw(
            num_vars, max(units), seeds=[seed], scale=scale, device=device
        )
        x = uniform_points(num_points, num_vars, seed=2 * seed, device=device)
        fresh = uniform_points(num_points, num_vars, seed=2 * seed + 1, device=device)
        A, y = features(fresh)[0], f(fresh)
        outer = features.solve(x, f(x), units=units, ridge=ridge)
        errors.append([_errors(A[:, : c.shape[1]] @ c[0], y) for c in outer])
    return _scaling(units, errors)


def tree(
    f: Compositional,
    *,
    units: Sequence[int],
    seeds: Sequence[int],
    scale: float = 3.0,
    num_points: int = 3000,
    ridge: float = 1e-9,
    shared: bool = False,
    device: torch.device | str | None = None,
) -> Scaling:
    """Fit every constituent of f by a layer of random units of its own, and compose the fits.

    All constituents must map [-1, 1]^d into [-1, 1]: a node is fitted on that box, a tenth larger
    on each side, and knows nothing of the others.

    Args:
        f: Compositional function; its nodes must all read equally many values.
        units: Numbers of units *per node*, increasing; the result counts those of all nodes.
        seeds: One fit per seed; the errors are geometric means over them.
        scale: Size of the inner weights.
        num_points: Points to fit each node on; 5000 fresh ones test the whole tree.
        ridge: See :meth:`RandomFeatures.solve`.
        shared: Whether all nodes use the units and outer weights of one of them, the first.
        device: Where to compute; default the CPU.

    Raises:
        TypeError, ValueError: if an argument is out of range or the nodes' arities differ.
    """
    arities = {len(node) for node in f.graph.nodes}
    if len(arities) > 1:
        raise ValueError(f"f must have nodes that read equally many values, got {sorted(arities)}.")
    (arity,), G = arities, f.graph.num_nodes
    errors = []
    for seed in _checks.integers("seeds", seeds, at_least=0):
        own = range(G * seed, G * (seed + 1))  # one seed per node
        features = RandomFeatures.draw(arity, max(units), seeds=own, scale=scale, device=device)
        x = torch.stack(
            [uniform_points(num_points, arity, seed=s, reach=PAD, device=device) for s in own]
        )
        y = torch.stack([h(*x[j].unbind(-1)) for j, h in enumerate(f.functions)])
        outer = features.solve(x, y, units=units, ridge=ridge)
        fresh = uniform_points(5000, f.graph.num_inputs, seed=seed, device=device)
        values = f(fresh)
        errors.append([_errors(_compose(f, features, c, fresh, shared), values) for c in outer])
    return _scaling([G * q for q in units], errors)


def _compose(
    f: Compositional, features: RandomFeatures, outer: Tensor, x: Tensor, shared: bool
) -> Tensor:
    """Value of the tree whose node j is the fit number j, or number 0 everywhere."""

    def node(j: int) -> Callable[..., Tensor]:
        j = 0 if shared else j
        part = slice(j, j + 1), slice(0, outer.shape[1] - 1)
        one = RandomFeatures(features.weights[part], features.biases[part], features.activation)
        return lambda *values: one(torch.stack(values, dim=-1))[0] @ outer[j]

    return evaluate(f.graph, [node(j) for j in range(f.graph.num_nodes)], x.unbind(-1))[-1]


def _errors(fit: Tensor, y: Tensor) -> tuple[float, float]:
    return float(relative_error(fit, y)), float((fit - y).abs().max())


def _scaling(units: Sequence[int], errors: list[list[tuple[float, float]]]) -> Scaling:
    """Geometric means over the seeds."""
    mean = torch.tensor(errors, dtype=torch.float64).log().mean(dim=0).exp()  # (U, 2)
    return Scaling(torch.tensor(list(units), dtype=torch.float64), mean[:, 0], mean[:, 1])
