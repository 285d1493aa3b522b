"""Deep ReLU networks written down weight by weight: squares, products, trees of polynomials.

Everything rests on one network, the sawtooth of Yarotsky 2017 (Neural Networks 94,
arXiv:1610.01145), Prop. 2: m compositions of a tent map interpolate the square at 2^m + 1 points.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from companion import _checks
from companion.approximation.compositional import Graph
from companion.approximation.polynomials import Polynomial
from companion.networks import MLP

Box = Sequence[tuple[float, float]]


@dataclass(frozen=True, eq=False)
class ReluNetwork:
    """The network ``W_K relu(W_{K-1} ... relu(W_1 x + b_1) ... + b_{K-1}) + b_K``.

    Args:
        weights: W_1, ..., W_K, float64; W_k has the shape (h_k, h_{k-1}).
        biases: b_1, ..., b_K, float64; b_k has the shape (h_k,).

    Raises:
        TypeError, ValueError: if there is no layer, or the shapes do not fit.

    >>> net = square(3)
    >>> net.widths, net.depth, net.num_units
    ((1, 2, 3, 3, 1), 3, 8)
    >>> net(torch.tensor([[0.5]], dtype=torch.float64)), net.exact(Fraction(1, 3))
    (tensor([0.2500], dtype=torch.float64), Fraction(11, 96))
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(self.weights))
        object.__setattr__(self, "biases", tuple(self.biases))
        if not self.weights or len(self.weights) != len(self.biases):
            raise ValueError(
                "weights and biases must hold one tensor per layer, "
                f"got {len(self.weights)} and {len(self.biases)}."
            )
        for k, (W, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            _checks.floating(f"weights[{k}]", W)
            if W.ndim != 2 or (k and W.shape[1] != self.weights[k - 1].shape[0]):
                raise ValueError(
                    f"weights[{k}] must have shape (h_{k + 1}, h_{k}), got {tuple(W.shape)}."
                )
            _checks.shape(f"biases[{k}]", _checks.floating(f"biases[{k}]", b), W.shape[:1])

    @property
    def widths(self) -> tuple[int, ...]:
        """(d, h_1, ..., h_K): number of inputs, of units in each hidden layer, of outputs."""
        return (self.weights[0].shape[1], *(len(b) for b in self.biases))

    @property
    def depth(self) -> int:
        """Number of hidden layers, K - 1."""
        return len(self.weights) - 1

    @property
    def num_units(self) -> int:
        """Number of ReLU units."""
        return sum(self.widths[1:-1])

    @property
    def num_weights(self) -> int:
        """Number of weights and biases that are not zero."""
        return sum(int(torch.count_nonzero(t)) for t in (*self.weights, *self.biases))

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs at points x (N, d): (N,), or (N, h_K) if there are several.

        Raises:
            TypeError, ValueError: if x is not a floating-point tensor of shape (N, d).
        """
        _checks.floating("x", x)
        if x.ndim != 2 or x.shape[1] != self.widths[0]:
            raise ValueError(f"x must have shape (N, {self.widths[0]}), got {tuple(x.shape)}.")
        h = x
        for k, (W, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.addmm(b, h if k == 0 else torch.relu(h), W.T)
        return h[:, 0] if h.shape[1] == 1 else h

    def exact(self, *x: Fraction | int) -> Fraction | tuple[Fraction, ...]:
        """Return the output at one point x_1, ..., x_d in rational arithmetic, without rounding.

        Floating-point weights are rational numbers, so this is the network itself.

        Raises:
            ValueError: if the number of arguments is not the number of inputs.
        """
        if len(x) != self.widths[0]:
            raise ValueError(f"x must be {self.widths[0]} numbers, got {len(x)}.")
        h = tuple(map(Fraction, x))
        for k in range(len(self.weights)):
            h = self._layer(k, h if k == 0 else tuple(max(v, 0) for v in h))
        return h[0] if len(h) == 1 else h

    def then(self, outer: ReluNetwork) -> ReluNetwork:
        """Return the composition ``outer(self(x))``, K + K' - 1 layers.

        Raises:
            ValueError: if ``outer`` does not take as many inputs as there are outputs.
        """
        if outer.widths[0] != self.widths[-1]:
            raise ValueError(f"outer must take {self.widths[-1]} inputs, got {outer.widths[0]}.")
        joint = outer.weights[0] @ self.weights[-1]
        bias = outer.weights[0] @ self.biases[-1] + outer.biases[0]
        return ReluNetwork(
            (*self.weights[:-1], joint, *outer.weights[1:]),
            (*self.biases[:-1], bias, *outer.biases[1:]),
        )

    def without_biases(self) -> tuple[MLP, dict[str, Tensor]]:
        """Return the same function as a network without biases of the inputs (x, 1).

        One more unit per layer carries the constant 1.

        Raises:
            ValueError: if the network has several outputs.

        Source: PNAS 2020, section 2.B, where a constant input stands for all biases.
        """
        if self.widths[-1] != 1:
            raise ValueError(f"the network must have one output, got {self.widths[-1]}.")
        params = {}
        for k, (W, b) in enumerate(zip(self.weights, self.biases, strict=True), start=1):
            joint = torch.cat([W, b[:, None]], dim=1)
            carry = torch.zeros(1, joint.shape[1], dtype=W.dtype)
            carry[0, -1] = 1.0
            params[f"W{k}"] = joint if k == len(self.weights) else torch.cat([joint, carry])
        return MLP(widths=(*(width + 1 for width in self.widths[:-1]), 1)), params

    @cached_property
    def _rows(self) -> list[list[tuple[list[tuple[int, Fraction]], Fraction]]]:
        """For each layer and unit: the inputs it reads with their weights, and its bias."""
        return [
            [
                ([(i, Fraction(w)) for i, w in enumerate(row) if w != 0], Fraction(bias))
                for row, bias in zip(W.tolist(), b.tolist(), strict=True)
            ]
            for W, b in zip(self.weights, self.biases, strict=True)
        ]

    def _layer(self, k: int, h: Sequence[Fraction]) -> tuple[Fraction, ...]:
        return tuple(sum((w * h[i] for i, w in row), bias) for row, bias in self._rows[k])


def beside(networks: Sequence[ReluNetwork]) -> ReluNetwork:
    """Return networks of equal depth side by side, as one network of all their inputs.

    Raises:
        ValueError: if there are none or their depths differ.
    """
    if len({net.depth for net in networks}) != 1:
        raise ValueError(
            f"networks must be at least one, of equal depth, got {[net.depth for net in networks]}."
        )
    layers = range(len(networks[0].weights))
    return ReluNetwork(
        tuple(torch.block_diag(*(net.weights[k] for net in networks)) for k in layers),
        tuple(torch.cat([net.biases[k] for net in networks]) for k in layers),
    )


# --- the square ----------------------------------------------------------------------------------


def tent(x: Tensor, times: int) -> Tensor:
    """Return the tent map ``g(x) = min(2 x, 2 - 2 x)`` composed with itself, at x in [0, 1].

    Source: Yarotsky 2017, section 3.1; Telgarsky 2016. ``times`` = 0 is the identity.
    """
    for _ in range(_checks.integer("times", times, at_least=0)):
        x = torch.minimum(2 * x, 2 - 2 * x)
    return x


def interpolant(x: Tensor, steps: int) -> Tensor:
    """Return f_m(x), the piecewise linear interpolant of x^2 at k / 2^m, for x in [0, 1].

    It is 0 for x < 0, as the network is. This is the closed form of ``square(m)``, cheap for many
    points; between k / 2^m and (k + 1) / 2^m it is the chord.
    """
    pieces = 2 ** _checks.integer("steps", steps, at_least=0)
    x = x.clamp(min=0)
    k = torch.floor(x * pieces).clamp(max=pieces - 1)
    return ((2 * k + 1) * x - k * (k + 1) / pieces) / pieces


def sum_of_squares(
    directions: Tensor,
    coefficients: Tensor,
    steps: int,
    *,
    radii: Tensor,
    shifts: Tensor | None = None,
    linear: Tensor | None = None,
    constant: float = 0.0,
    lift: float = 0.0,
    one_sided: bool = False,
) -> ReluNetwork:
    """Return a ReLU network for ``sum_j c_j z_j^2 + linear . x + constant``, z_j = v_j . x + s_j.

    Every ``z^2`` is replaced by ``r^2 f_m(|z| / r)``, which is exact to r^2 / 4^(m + 1) where
    |z| <= r. All sawtooths run in parallel; one more unit per layer carries the sum so far.

    Args:
        directions: v_j, (J, d).
        coefficients: c_j, (J,).
        steps: m, the number of tent maps; the network has max(m, 1) hidden layers.
        radii: r_j > 0, (J,), with |z_j| <= r_j wherever the network is to be accurate.
        shifts: s_j, (J,); none if left out.
        linear: (d,); none if left out.
        constant: Added to the output.
        lift: Added to what is carried, so that it passes each ReLU unchanged, and subtracted
            after: large enough that no partial sum falls below -lift.
        one_sided: Compute ``(z_j)_+^2`` instead, with half the units in the first layer.

    Raises:
        TypeError, ValueError: if an argument has a wrong type or shape.

    Source: Yarotsky 2017, Prop. 2 and Fig. 2.
    """
    m = _checks.integer("steps", steps, at_least=0)
    J = _check_squares(directions, coefficients, radii, shifts)
    z, s = directions / radii[:, None], (0 * radii if shifts is None else shifts / radii)
    w = coefficients * radii**2
    eye, none = torch.eye(J, dtype=z.dtype), z.new_zeros(J, 1)
    sides = (1,) if one_sided else (1, -1)
    kinks = (0.0,) if m == 0 else (0.0, 0.5)
    rows = [side * z for _ in kinks for side in sides]
    bias = [side * s - kink for kink in kinks for side in sides]
    # From the units of the first layer: |z| / r, and the amount by which it exceeds one half.
    above = [torch.cat([eye * (kink == at) for kink in kinks for _ in sides], 1) for at in kinks]
    carried = 0.0 if linear is None else lift
    if linear is not None:
        rows.append(linear[None])
        bias.append(z.new_tensor([constant + lift]))
        above = [torch.cat([part, none], 1) for part in above]
    weights, biases = [torch.cat(rows)], [torch.cat(bias)]
    tents = 2 * above[0] - 4 * above[-1]
    total = w @ (above[0] if m == 0 else above[0] - tents / 4)
    total[-1] += linear is not None
    offset = 0.0 - carried if linear is not None else constant
    for step in range(2, m + 1):
        weights.append(torch.cat([tents, tents, total[None]]))
        biases.append(torch.cat([0 * s, 0 * s - 0.5, z.new_tensor([offset + lift])]))
        tents = torch.cat([2 * eye, -4 * eye, none], 1)
        total = torch.cat([-(w @ tents[:, :-1]) / 4.0**step, w.new_ones(1)])
        offset = 0.0 - lift
    return ReluNetwork((*weights, total[None]), (*biases, z.new_tensor([offset])))


def _check_squares(
    directions: Tensor, coefficients: Tensor, radii: Tensor, shifts: Tensor | None
) -> int:
    """Check that all belong to the same squares, and return their number."""
    _checks.finite("directions", directions)
    if directions.ndim != 2 or not len(directions):
        raise ValueError(
            f"directions must have shape (J, d) with J >= 1, got {tuple(directions.shape)}."
        )
    shape = directions.shape[:1]
    for name, value in (("coefficients", coefficients), ("radii", radii), ("shifts", shifts)):
        if value is not None:
            _checks.shape(name, _checks.finite(name, value), shape)
            _checks.same_kind(name, value, "directions", directions)
    if bool((radii <= 0).any()):
        raise ValueError(f"radii must be greater than 0, got {radii.min().item()}.")
    return len(directions)


def square(steps: int, *, signed: bool = False) -> ReluNetwork:
    """Return f_m, the sawtooth network for x^2 on [0, 1] (``signed``: on [-1, 1]).

    The largest error is exactly 2^(-2m-2). For m >= 1 there are m hidden layers and 3 m - 1 units
    (``signed``: 3 m + 1). Without ``signed`` the output is 0 for x <= 0, so that the network
    approximates x_+^2 on (-inf, 1].

    Raises:
        TypeError, ValueError: if ``steps`` is not an integer >= 0.

    Source: Yarotsky 2017, Prop. 2.

    >>> square(8).num_units, square_error(square(8)) == Fraction(1, 4**9)
    (23, True)
    """
    one = torch.ones(1, dtype=torch.float64)
    return sum_of_squares(one[:, None], one, steps, radii=one, one_sided=not signed)


def product(steps: int, *, bound: float = 1.0) -> ReluNetwork:
    """Return a ReLU network for x y on |x|, |y| <= B, ``((x + y) / 2)^2 - ((x - y) / 2)^2``.

    The largest error is exactly B^2 2^(-2m-2), as for a single square, and the output is 0 where
    x y = 0. For m >= 1 there are m hidden layers and 5 m + 3 units.

    Raises:
        TypeError, ValueError: if ``steps`` is not an integer >= 0 or ``bound`` not positive.

    Source: Yarotsky 2017, Prop. 3, which takes three squares.

    >>> float(product(6)(torch.tensor([[0.5, -0.75]], dtype=torch.float64)))
    -0.375
    """
    B = _checks.positive("bound", bound)
    sides = torch.tensor([[0.5, 0.5], [0.5, -0.5]], dtype=torch.float64)
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64)
    return sum_of_squares(sides, signs, steps, radii=signs.abs() * B, lift=B**2)


# --- exact piecewise linear functions ------------------------------------------------------------


def breakpoints(
    net: ReluNetwork, low: Fraction | int = 0, high: Fraction | int = 1
) -> tuple[Fraction, ...]:
    """Return ``low``, all points between where the slope of the network changes, and ``high``.

    Exact, by following each linear piece through the layers: a unit splits a piece where its
    argument changes sign. The number of pieces is one less than the number of points.

    Raises:
        ValueError: if the network does not have one input and one output, or low >= high.

    >>> len(breakpoints(square(5))) - 1
    32
    """
    x, _ = _polyline(net, low, high)
    return x


def square_error(net: ReluNetwork, low: Fraction | int = 0, high: Fraction | int = 1) -> Fraction:
    """Return the largest value of ``|net(x) - x^2|`` on [low, high], exactly.

    Between two neighbouring breakpoints the network is affine, so ``net(x) - x^2`` is a concave
    parabola: it is largest where x is half the slope, if that lies in the piece, and smallest at
    an end. These finitely many points decide.

    Raises:
        ValueError: if the network does not have one input and one output, or low >= high.
    """
    x, f = _polyline(net, low, high)
    errors = [abs(value - point**2) for point, value in zip(x, f, strict=True)]
    for (u, v), (f_u, f_v) in zip(itertools.pairwise(x), itertools.pairwise(f), strict=True):
        slope = (f_v - f_u) / (v - u)
        if u < slope / 2 < v:
            errors.append(abs(f_u + slope * (slope / 2 - u) - slope**2 / 4))
    return max(errors)


def least_units(error: float) -> int:
    """Return how many ReLU units x^2 on [0, 1] takes at least, at any depth, for this error.

    Each unit at most doubles the number of linear pieces, and a function with P pieces is at least
    1 / (8 P^2) away from x^2.

    Raises:
        TypeError, ValueError: if the error is not positive.

    >>> least_units(2.0**-19)
    8
    """
    error = _checks.positive("error", error)
    return max(0, math.ceil(-0.5 * math.log2(8 * error)))


def _polyline(
    net: ReluNetwork, low: Fraction | int, high: Fraction | int
) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
    """The graph of a network of one variable: breakpoints and the values there."""
    if (net.widths[0], net.widths[-1]) != (1, 1):
        raise ValueError(f"net must have one input and one output, got widths {net.widths}.")
    if not low < high:
        raise ValueError(f"low must be less than high, got {low} and {high}.")
    x = [Fraction(low), Fraction(high)]
    h = [net._layer(0, (point,)) for point in x]  # arguments of the ReLUs of the first layer
    for k in range(1, len(net.weights)):
        x, h = _split_at_zeros(x, h)
        h = [net._layer(k, tuple(max(value, 0) for value in values)) for values in h]
    f = [values[0] for values in h]
    kept = [0]
    for i in range(1, len(x) - 1):
        rise, run = f[i] - f[kept[-1]], x[i] - x[kept[-1]]
        if rise * (x[i + 1] - x[i]) != (f[i + 1] - f[i]) * run:
            kept.append(i)
    kept.append(len(x) - 1)
    return tuple(x[i] for i in kept), tuple(f[i] for i in kept)


def _split_at_zeros(
    x: list[Fraction], z: list[tuple[Fraction, ...]]
) -> tuple[list[Fraction], list[tuple[Fraction, ...]]]:
    """Insert the points between neighbours where an affine function z changes its sign."""
    points, values = [x[0]], [z[0]]
    for (u, v), (z_u, z_v) in zip(itertools.pairwise(x), itertools.pairwise(z), strict=True):
        shares = {a / (a - b) for a, b in zip(z_u, z_v, strict=True) if a * b < 0}
        for share in sorted(shares):
            points.append(u + share * (v - u))
            values.append(tuple(a + share * (b - a) for a, b in zip(z_u, z_v, strict=True)))
        points.append(v)
        values.append(z_v)
    return points, values


# --- polynomials on a tree -----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Approximation:
    """A ReLU network for a function on a box.

    Attributes:
        net: The network.
        error: Bound on the largest error of a single constituent on its box: one number per node,
            in the order of the nodes.
        ranges: An interval that holds the values of each node's network, in the same order.
    """

    net: ReluNetwork
    error: tuple[float, ...]
    ranges: tuple[tuple[float, float], ...]


def quadratic(polynomial: Polynomial, steps: int, *, box: Box) -> Approximation:
    """Return a ReLU network for a polynomial of degree at most 2 on a box.

    The eigenvectors of its matrix turn d variables into d squares, one sawtooth each, centred on
    the interval that the box leaves to it. For m >= 1 and d = 2 there are m hidden layers and
    5 m + 4 units.

    Args:
        polynomial: In d variables.
        steps: m.
        box: (low, high) for each variable.

    Raises:
        TypeError, ValueError: if the degree exceeds 2 or the box does not fit.
    """
    low, high = _check_box(polynomial, box)
    constant, gradient, matrix = _form(polynomial)
    eigenvalues, vectors = np.linalg.eigh(matrix)
    v = vectors.T
    middle = v @ (low + high) / 2
    radii = np.abs(v) @ (high - low) / 2
    # c (v.x)^2 = c (v.x - middle)^2 + 2 c middle v.x - c middle^2
    linear = gradient + 2 * (eigenvalues * middle) @ v
    constant -= float(eigenvalues @ middle**2)
    weight = eigenvalues * radii**2
    bottom, top = _range(polynomial, low, high)
    error = float(np.abs(weight).sum()) / 4.0 ** (steps + 1)
    dip = -float(weight.clip(max=0).sum()) / 4  # a partial sum exceeds its square by 1/4 at most
    start = constant + float(np.minimum(linear * low, linear * high).sum())
    net = sum_of_squares(
        *map(torch.from_numpy, (v.copy(), eigenvalues)),
        steps,
        radii=torch.from_numpy(radii),
        shifts=torch.from_numpy(-middle),
        linear=torch.from_numpy(linear),
        constant=constant,
        lift=max(0.0, -start, dip - bottom),
    )
    return Approximation(net, (error,), ((bottom - error, top + error),))


def tree(
    polynomials: Sequence[Polynomial], steps: int, *, low: float = -1.0, high: float = 1.0
) -> Approximation:
    """Return a deep ReLU network for a compositional polynomial on [low, high]^n.

    The graph is ``Graph.tree(n)``; every node is a :func:`quadratic`, all nodes of a level side by
    side, so that there are m log2(n) hidden layers and (n - 1) (5 m + 4) units for m >= 1.

    Args:
        polynomials: The n - 1 constituents, n a power of 2, each of degree at most 2 in two
            variables, in the order of the nodes.
        steps: m, the number of tent maps in every node.
        low: Smallest value of each input.
        high: Largest value of each input.

    Raises:
        TypeError, ValueError: if n - 1 nodes do not make a full tree, or a degree exceeds 2.

    Source: PNAS 2020, Theorem 3, with the ReLU in place of a smooth activation.

    >>> ab = Polynomial(powers=((1, 1),), coefficients=(1.0,))
    >>> net = tree((ab, ab, ab), steps=5).net
    >>> net.depth, net.num_units
    (10, 87)
    """
    n = len(polynomials) + 1
    if n < 2 or n & (n - 1):
        raise ValueError(f"polynomials must number n - 1 with n a power of 2, got {n - 1}.")
    graph = Graph.tree(n)
    values: list[tuple[float, float]] = [(low, high)] * n
    error: list[float] = []
    net = None
    for level in range(1, graph.depth + 1):
        row = []
        for node in (j for j in range(n - 1) if graph.levels[j] == level):
            box = [values[parent] for parent in graph.nodes[node]]
            row.append(quadratic(polynomials[node], steps, box=box))
        values += [part.ranges[0] for part in row]
        error += [part.error[0] for part in row]
        above = beside([part.net for part in row])
        net = above if net is None else net.then(above)
    return Approximation(net, tuple(error), tuple(values[n:]))


def _check_box(polynomial: Polynomial, box: Box) -> tuple[np.ndarray, np.ndarray]:
    if polynomial.degree > 2:
        raise ValueError(f"polynomial must have degree at most 2, got {polynomial.degree}.")
    bounds = np.array(box, dtype=float)
    if bounds.shape != (polynomial.num_vars, 2) or not (bounds[:, 0] < bounds[:, 1]).all():
        raise ValueError(
            f"box must hold (low, high) with low < high for each of {polynomial.num_vars} "
            f"variables, got {box}."
        )
    return bounds.T


def _form(polynomial: Polynomial) -> tuple[float, np.ndarray, np.ndarray]:
    """Constant, gradient (d,) and symmetric matrix (d, d) of c + g.x + x.Q x, in float64."""
    c, g, Q = polynomial.quadratic_form()
    return float(c), np.array(g, dtype=float), np.array(Q, dtype=float)


def _range(polynomial: Polynomial, low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    """Smallest and largest value of a quadratic on a box: at a critical point of one of its faces.

    On a face some variables sit at an end and the gradient in the others vanishes. If it vanishes
    on a line, the value there is also taken on the boundary, so such a face may be skipped.
    """
    _, gradient, matrix = _form(polynomial)
    values = []
    for face in itertools.product((None, 0, 1), repeat=len(low)):
        free = [i for i, side in enumerate(face) if side is None]
        x = np.array([(low, high)[side or 0][i] for i, side in enumerate(face)])
        if free:
            x[free] = 0.0
            block, pull = 2 * matrix[np.ix_(free, free)], -(gradient + 2 * matrix @ x)[free]
            if np.linalg.matrix_rank(block) < len(free):
                continue
            x[free] = np.linalg.solve(block, pull)
            if (x < low).any() or (x > high).any():
                continue
        values.append(float(polynomial(*x)))
    return min(values), max(values)


# --- Lipschitz functions of two variables --------------------------------------------------------


def triangulated(
    f: Callable[[Tensor, Tensor], Tensor], cells: int, *, low: float = -1.0, high: float = 1.0
) -> ReluNetwork:
    """Return the piecewise linear interpolant of f on [low, high]^2 as a ReLU network.

    Each of G x G squares is cut in two along the direction (1, 1). The hat function of a grid point
    is ``relu(1 - (|u| + |v| + |u - v|) / 2)`` with u, v the offsets in units of the grid, so two
    hidden layers do, with (G + 1)^2 + 8 G + 6 units. If f has Lipschitz constant L in the sum of
    the |offsets|, the error is at most L (high - low) / G.

    Args:
        f: A function of two tensors.
        cells: G.
        low: Lower end of both variables.
        high: Upper end of both variables.

    Raises:
        TypeError, ValueError: if ``cells`` is not an integer >= 1 or low >= high.

    Source: He, Li and Xu 2021 (arXiv:2105.04156), for the hat function in two hidden layers.

    >>> net = triangulated(torch.maximum, 4)
    >>> net.widths, net(torch.tensor([[0.3, -0.2]], dtype=torch.float64))
    ((2, 38, 25, 1), tensor([0.3000], dtype=torch.float64))
    """
    G = _checks.integer("cells", cells, at_least=1)
    step = _checks.positive("high - low", high - low) / G
    at = torch.arange(G + 1, dtype=torch.float64)
    across = torch.arange(-G, G + 1, dtype=torch.float64)
    start = low / step
    # Distances |x - x_i|, |y - y_j| and |(x - y) - (x_i - y_j)|, in units of the grid.
    slopes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / step
    kinks = (start + at, start + at, across)
    rows = torch.cat([slope.expand(len(k), 2) for slope, k in zip(slopes, kinks, strict=True)])
    offsets = torch.cat(kinks)
    i, j = (index.flatten() for index in torch.meshgrid(*2 * [torch.arange(G + 1)], indexing="ij"))
    hats = torch.zeros((G + 1) ** 2, len(offsets), dtype=torch.float64)
    for column in (i, G + 1 + j, 2 * G + 2 + i - j + G):
        hats[torch.arange(len(i)), column] = -0.5
    values = f(low + step * at[i], low + step * at[j])
    return ReluNetwork(
        (torch.cat([rows, -rows]), torch.cat([hats, hats], dim=1), values[None]),
        (
            torch.cat([-offsets, offsets]),
            torch.ones(len(i), dtype=torch.float64),
            values.new_zeros(1),
        ),
    )
