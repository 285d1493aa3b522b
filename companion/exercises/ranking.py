"""Graders of the chapter on what ranks networks."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import optimize, special, stats

from companion.exercises._grading import BY_HAND, Grader, Wrong, call, close, numbers, one_number

_MARGINS = np.array([0.9, 0.7, 0.5, 0.3, 0.1])  # in thousandths, as on the page
_ERRORS = np.array([0.05, 0.04, 0.09, 0.30, 0.08])


def _ranking_1(answer: Any) -> str:
    x, y = _MARGINS, _ERRORS
    difference = stats.rankdata(x) - stats.rankdata(y)
    squares, n = float(difference @ difference), len(x)
    return one_number(
        answer,
        1 - 6 * squares / (n * (n**2 - 1)),
        right="A large margin goes with a small error here, though not strictly.",
        mistakes={
            float(
                stats.kendalltau(x, y).statistic
            ): "This is Kendall's tau: Spearman's uses ranks.",
            float(np.corrcoef(x, y)[0, 1]): "This is the correlation of the values, not the ranks.",
            1 - squares / (n * (n**2 - 1)): "The factor 6 is missing.",
            1 - 6 * squares / (n**2 - 1): "Divide by n(n^2 - 1).",
            1 - 6 * squares / n**3: "Divide by n(n^2 - 1), not by n^3.",
            squares: "This is the sum of the squared differences of ranks.",
        },
        otherwise="Write down both rows of ranks, from 1 for the smallest, and compare them.",
        rel=BY_HAND,
    )


# rows: two scales; columns: three noise levels
_TABLE = np.array([[1.0, 3.0, 4.0], [2.0, 6.0, 5.0]])
_TABLE_ERRORS = np.array([[2.0, 5.0, 6.0], [1.0, 3.0, 4.0]])


def _tau(x: np.ndarray, y: np.ndarray) -> float:
    signs = np.sign(x[:, None] - x) * np.sign(y[:, None] - y)
    return float(signs.sum() / (len(x) * (len(x) - 1)))


def _ranking_2(answer: Any) -> str:
    found = numbers(answer, (2,), "two numbers, psi along the noise and along the scale")
    pairs = list(zip(_TABLE, _TABLE_ERRORS, strict=True))
    columns = list(zip(_TABLE.T, _TABLE_ERRORS.T, strict=True))
    noise = np.array([_tau(*pair) for pair in pairs])
    right = np.array([noise.mean(), np.mean([_tau(*pair) for pair in columns])])
    if close(found, right, rel=BY_HAND):
        return "Along the noise the quantity ranks well, along the scale always wrongly."
    if close(found, right[::-1], rel=BY_HAND):
        raise Wrong("Wrong order: psi along the noise comes first.")
    if close(found[0], 1, rel=BY_HAND) and close(found[1], right[1], rel=BY_HAND):
        raise Wrong("Along the noise: two networks of the second scale are in the wrong order.")
    rho = np.mean([stats.spearmanr(*pair).statistic for pair in pairs])
    if close(found[0], rho, rel=BY_HAND):
        raise Wrong("Along the noise this is Spearman's coefficient; count pairs instead.")
    if close(found[0], noise.sum(), rel=BY_HAND):
        raise Wrong("Along the noise: take the mean over the scales, not the sum.")
    if close(found[0], noise[1], rel=BY_HAND):
        raise Wrong("Along the noise: average over both scales.")
    if close(found, -right, rel=BY_HAND):
        raise Wrong("Wrong sign in both: a pair in the same order counts +1.")
    if close(found[0], right[0], rel=BY_HAND):
        raise Wrong("Along the scale: compare the two networks of each noise level.")
    if close(found[1], right[1], rel=BY_HAND):
        raise Wrong("Along the noise: count the pairs within each scale, in order less out of it.")
    raise Wrong("For each group count pairs in the same order less pairs in the other, over all.")


def _ranking_3(answer: Any) -> str:
    rng = np.random.default_rng(3)
    plain = (rng.permutation(9.0 ** rng.uniform(-3, 3, size=9)), rng.normal(size=9))
    tied = (np.array([3.0, 1.0, 2.0, 2.0, 5.0, 2.0]), np.array([0.2, 0.1, 0.1, 0.4, 0.4, 0.3]))
    for name, (x, y) in (("without ties", plain), ("with ties", tied)):
        returned = call(answer, x.copy(), y.copy(), name="spearman")
        value = float(numbers(returned, (), "one number, returned by the function"))
        target = float(stats.spearmanr(x, y).statistic)
        if close(value, target, rel=1e-9, abs_=1e-12):
            continue
        if name == "without ties":
            _name_the_statistic(value, x, y)
            raise Wrong("It differs from the correlation of the ranks, even without ties.")
        raise Wrong("Right without ties. Equal values must share the mean of their ranks.")
    return "It correlates ranks, and equal values share the mean of theirs."


def _name_the_statistic(value: float, x: np.ndarray, y: np.ndarray) -> None:
    if close(value, np.corrcoef(x, y)[0, 1], rel=1e-9):
        raise Wrong("This correlates the values: replace them by their ranks first.")
    if close(value, stats.kendalltau(x, y).statistic, rel=1e-9):
        raise Wrong("This is Kendall's tau.")
    if close(value, np.corrcoef(np.argsort(x), np.argsort(y))[0, 1], rel=1e-9):
        raise Wrong("argsort gives the positions of the sorted values; ranks take it twice.")
    if close(value, -stats.spearmanr(x, y).statistic, rel=1e-9):
        raise Wrong("Wrong sign.")


def _ranking_4(answer: Any) -> str:
    what = "a value and an error for each of six networks, as an array of shape (6, 2)"
    values, errors = numbers(answer, (6, 2), what).T
    if not ((errors >= 0) & (errors <= 1)).all():
        raise Wrong("An error is a fraction between 0 and 1.")
    for name, rows in (("first", slice(0, 3)), ("second", slice(3, 6))):
        x, y = values[rows], errors[rows]
        if len(set(x)) < 3 or len(set(y)) < 3:
            raise Wrong(f"Two networks of the {name} group have the same value or error.")
        if (np.argsort(x) != np.argsort(y)).any():
            raise Wrong(f"In the {name} group the value does not rank the networks perfectly.")
    pooled = float(stats.spearmanr(values, errors).statistic)
    if pooled > 0:
        raise Wrong("All six together still have a positive correlation: move a group.")
    if pooled > -0.5:
        raise Wrong("The pooled correlation is negative, but not low enough: move a group further.")
    return "Perfect in each group, and wrong for both together."


def _ranking_5(answer: Any) -> str:
    rng = np.random.default_rng(5)
    for size, loss in ((1.0, 0.5), (1e-3, 0.1), (1e-5, 1e-2), (30.0, 1.2)):
        y = np.arange(12) % 4
        f = size * rng.uniform(-1, 1, size=(12, 4))
        f[range(12), y] = size * rng.uniform(1.2, 2.0, size=12)  # every point is right
        returned = call(answer, f.copy(), y.copy(), loss, name="common_rho")
        rho = float(numbers(returned, (), "one number, returned by the function"))
        target = _rho(f, y, loss)
        if close(rho, target, rel=1e-4):
            continue
        if close(rho, np.log(target), rel=1e-4):
            raise Wrong("This is the logarithm of rho.")
        if rho <= 0:
            raise Wrong("rho must be positive.")
        if close(rho, _rho(f, y, loss / 12), rel=1e-3):
            raise Wrong("This makes the sum of the losses that large: take the mean.")
        if close(rho, _rho(f, y, loss * np.log(10)), rel=1e-3):
            raise Wrong("The loss is in nats: use the natural logarithm.")
        found = float(_mean_loss(rho * f, y))
        size_in_words = "larger" if found > loss else "smaller"
        raise Wrong(f"With outputs of size {size:g}, the loss at your rho is {size_in_words}.")
    return "The mean cross-entropy of rho f has the wanted value, for small and large outputs."


def _mean_loss(f: np.ndarray, y: np.ndarray) -> float:
    return float((special.logsumexp(f, axis=1) - f[range(len(y)), y]).mean())


def _rho(f: np.ndarray, y: np.ndarray, loss: float) -> float:
    """The rho at which the loss is reached, or NaN if it is above that of rho = 0."""
    if loss >= np.log(f.shape[1]):
        return float("nan")
    largest = float(np.abs(f).max())
    root = optimize.brentq(
        lambda t: _mean_loss(np.exp(t) / largest * f, y) - loss, -20.0, 12.0, xtol=1e-13
    )
    return float(np.exp(root) / largest)


GRADERS: dict[str, Grader] = {
    "1": _ranking_1,
    "2": _ranking_2,
    "3": _ranking_3,
    "4": _ranking_4,
    "5": _ranking_5,
}
