"""Graders of the chapter on the Hessian of a trained network."""

from __future__ import annotations

from typing import Any

import numpy as np

from companion.exercises._grading import BY_HAND, Grader, Wrong, call, close, numbers, one_number


def _eigenvalues(matrix: Any) -> np.ndarray:
    return np.linalg.eigvalsh(np.asarray(matrix, dtype=float))


def _spectrum_1(answer: Any) -> str:
    a, w = 2.0, 1.0
    slope = np.array([w, a])  # of the margin a w
    mixed = np.array([[0.0, 1.0], [1.0, 0.0]])  # its second derivatives
    G = np.outer(slope, slope)  # noqa: N806 (the chapter's letter)
    target = _eigenvalues(G - mixed)
    values = numbers(answer, (2,), "two numbers, the smaller eigenvalue first")
    if close(values, target, rel=0, abs_=BY_HAND):
        return "Both positive, and their sum is the trace of the Gauss-Newton matrix."
    if close(values, target[::-1], rel=0, abs_=BY_HAND):
        raise Wrong("Right numbers in the wrong order: the smaller one comes first.")
    readings = [
        (_eigenvalues(G), "These are the eigenvalues of G alone: the network is curved, too."),
        (_eigenvalues(-mixed), "These are the eigenvalues of R alone."),
        (_eigenvalues(G + mixed), "Wrong sign of R: the loss falls with the margin."),
        (np.exp(-a * w) * target, "Off by a factor: divide by the loss."),
        (-target[::-1], "Wrong sign."),
    ]
    for mistaken, reason in readings:
        if close(np.sort(values), mistaken, rel=0, abs_=BY_HAND):
            raise Wrong(reason)
    if not close(values.sum(), np.trace(G), rel=0, abs_=BY_HAND):
        raise Wrong("Their sum is not the trace of the Hessian, which is that of G.")
    raise Wrong("The sum is right, the product is not: compare with the determinant.")


def _spectrum_2(answer: Any) -> str:
    N, d, h = 1000, 100, 50  # noqa: N806 (the paper's letter)
    W = d * h + h  # noqa: N806
    return one_number(
        answer,
        W - N - 2 * h,
        rel=1e-9,
        right="All weights, less the samples, less twice the units.",
        mistakes={
            W - N: "That is the count of the square loss at zero error: here R does not vanish.",
            W
            - N
            - h: "Off by the number of units: R has eigenvalues of both signs, the last layer "
            "has weights, and no layer has biases.",
            W - N - 2 * d: "R is counted by units, not by inputs.",
            d * h - N - 2 * h: "The weights of the last layer are missing.",
            N + 2 * h: "That many can differ from zero; the question is how many cannot.",
            W: "That is the number of all weights.",
        },
        otherwise="Count all weights, then take away the ranks of the two parts of the Hessian.",
    )


def _spectrum_3(answer: Any) -> str:
    import torch

    rng = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    P = 6  # noqa: N806
    A, w, v = draw(P, P), draw(P), draw(P)  # noqa: N806
    A = (A + A.T) / 2  # noqa: N806

    def loss(t: torch.Tensor) -> torch.Tensor:
        return 0.5 * t @ A @ t + (t**4).sum() / 12

    H = (A + torch.diag(w**2)).numpy()  # noqa: N806
    found = numbers(
        call(answer, loss, w.clone(), v.clone(), name="hvp"), (P,), "a tensor of shape (P,)"
    )
    _compare_products(found, H, A.numpy(), w.numpy(), v.numpy())
    P = 400  # noqa: N806 (large enough to tell a product from a matrix)
    scale, w, v = draw(P), draw(P), draw(P)

    def wide(t: torch.Tensor) -> torch.Tensor:
        return 0.5 * (scale * t**2).sum() + (t[:-1] * t[1:]).sum()

    right = scale * v
    right[:-1] += v[1:]
    right[1:] += v[:-1]
    found = numbers(_watched(answer, wide, w.clone(), v.clone()), (P,), "a tensor of shape (P,)")
    if not close(found, right.numpy(), rel=1e-5, abs_=1e-6):
        raise Wrong("Right with six weights, but not with more.")
    return "Right, and at the cost of a few gradients."


def _watched(function: Any, loss: Any, w: Any, v: Any) -> Any:
    """Call the reader's function, and stop it where it makes a matrix, at once or row by row."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    limit = len(w) ** 2 // 2

    class Watch(TorchDispatchMode):
        operations = 0
        seen = ""

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            result = func(*args, **(kwargs or {}))
            self.operations += 1
            if isinstance(result, torch.Tensor) and result.numel() >= limit:
                self.seen = "A matrix of P x P numbers is formed on the way."
            if self.operations > 5 * len(w):
                self.seen = "Too many operations: one product must not cost one pass per weight."
            if self.seen:
                raise RuntimeError(self.seen)
            return result

    with Watch() as watch:
        try:
            found = call(function, loss, w, v, name="hvp")
        except Wrong:
            if watch.seen:
                raise Wrong(watch.seen) from None
            raise
    return found


def _compare_products(
    found: np.ndarray,
    H: np.ndarray,
    A: np.ndarray,
    w: np.ndarray,
    v: np.ndarray,  # noqa: N803
) -> None:
    if close(found, H @ v, rel=1e-5, abs_=1e-6):
        return
    gradient = A @ w + w**3 / 3
    readings = [
        (-H @ v, "Wrong sign."),
        (gradient, "This is the gradient: differentiate once more, along v."),
        (gradient * v, "This is the gradient times v, entry by entry."),
        (np.diag(H) * v, "Only the diagonal of the Hessian is there."),
        (A @ v, "The Hessian is taken at w = 0."),
        (H @ w, "The Hessian is multiplied by w, not by v."),
        (H.sum(axis=1), "This is the Hessian times a vector of ones: v is missing."),
        (2 * H @ v, "Off by a factor."),
        (0.5 * H @ v, "Off by a factor."),
    ]
    for mistaken, reason in readings:
        if close(found, mistaken, rel=1e-5, abs_=1e-6):
            raise Wrong(reason)
    raise Wrong("Not the product of the Hessian with v.")


def _spectrum_4(answer: Any) -> str:
    import torch

    rng = np.random.default_rng(4)
    for N, C, P in ((5, 3, 4), (2, 4, 6)):  # noqa: N806
        J, z = rng.normal(size=(N, C, P)), rng.normal(size=(N, C))  # noqa: N806
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        diagonal = np.einsum("nc,cd->ncd", p, np.eye(C))
        outer = np.einsum("nc,nd->ncd", p, p)

        def assembled(B: np.ndarray, J: np.ndarray = J) -> np.ndarray:  # noqa: N803
            return np.einsum("ncp,ncd,ndq->pq", J, B, J)

        found = numbers(
            call(
                answer, torch.from_numpy(J.copy()), torch.from_numpy(z.copy()), name="gauss_newton"
            ),
            (P, P),
            "a matrix of shape (P, P)",
        )
        target = assembled(diagonal - outer)
        if close(found, target, rel=1e-9, abs_=1e-11):
            continue
        bernoulli = np.einsum("nc,cd->ncd", p * (1 - p), np.eye(C))
        readings = [
            (target / N, "That is the mean over the samples; the exercise asks for the sum."),
            (-target, "Wrong sign."),
            (assembled(np.broadcast_to(np.eye(C), (N, C, C))), "The second derivatives of the "
             "loss by the outputs are missing: this is the sum of the products of the J."),
            (assembled(diagonal), "The product of the probabilities is missing: the softmax "
             "couples the outputs."),
            (assembled(-outer), "The diagonal of the probabilities is missing."),
            (assembled(outer), "The diagonal of the probabilities is missing."),
            (assembled(bernoulli), "The classes are treated as independent: the off-diagonal "
             "second derivatives are missing."),
            (assembled(diagonal + outer), "Wrong sign between the two terms."),
        ]  # fmt: skip
        for mistaken, reason in readings:
            if close(found, mistaken, rel=1e-9, abs_=1e-11):
                raise Wrong(reason)
        if not close(found, found.T, rel=1e-9, abs_=1e-11):
            raise Wrong("Not symmetric.")
        raise Wrong("Symmetric, but not the Gauss-Newton matrix of the summed cross-entropy.")
    return "It agrees with the definition; the labels were not needed."


def _spectrum_5(answer: Any) -> str:
    w1, w2, a = numbers(answer, (3,), "three numbers, w_1, w_2 and a")
    x, y = np.array([[1.0, 2.0], [1.0, -1.0]]), np.array([1.0, -1.0])
    z = x @ np.array([w1, w2])
    active = z > 0
    if a == 0:
        raise Wrong("With a = 0 both outputs are zero, and then a moves before w does.")
    if not active.any():
        raise Wrong("The unit is active on neither sample: the gradient is zero, nothing moves.")
    if active.all():
        raise Wrong("The unit is active on both samples, so neither is silent.")
    if (z == 0).any():
        raise Wrong("The silent sample lies on the kink of the unit: move it to the inactive side.")
    seen = int(np.flatnonzero(active)[0])
    if a * y[seen] < 0:
        raise Wrong("The sample that the unit sees is classified wrongly, so none is correct.")
    # The flow moves w along x_seen, which lowers the other preactivation: x_1 . x_2 < 0.
    return "The sample that the unit sees drives it further from the other, for ever."


GRADERS: dict[str, Grader] = {
    "1": _spectrum_1,
    "2": _spectrum_2,
    "3": _spectrum_3,
    "4": _spectrum_4,
    "5": _spectrum_5,
}
