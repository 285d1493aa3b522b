"""Data: sets with an exactly known maximum margin, scikit-learn's digits, and CIFAR-10.

Only CIFAR-10 is downloaded, and only when asked for. The first axis of x counts points; the labels
of two classes are -1 and +1 in the dtype of x, those of more classes are the integers 0 .. C - 1.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from companion import _checks, _cifar10


class Dataset(NamedTuple):
    """Points and labels; ``x, y = dataset`` unpacks it.

    Args:
        x: Points, (N, d), or images, (N, channels, height, width).
        y: Labels, (N,): -1 and +1 in the dtype of x for two classes, else integers.
    """

    x: Tensor
    y: Tensor


class SeparableDataset(NamedTuple):
    """Linearly separable points together with their maximum margin and its certificate.

    With weights a_n >= 0 that sum to 1, ``sum_n a_n y_n x_n = margin * direction``. Hence every
    unit vector u has ``min_n y_n x_n . u <= sum_n a_n y_n x_n . u = margin * (direction . u)``,
    which is at most ``margin``, with equality for ``u = direction`` only.

    Args:
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        direction: The unit vector of the maximum margin, (d,).
        margin: ``min_n y_n x_n . direction``, the largest over unit vectors; in the units of x.
        weights: Dual weights a, (N,); positive on the planted support vectors, else 0.
    """

    x: Tensor
    y: Tensor
    direction: Tensor
    margin: float
    weights: Tensor


def digits(
    classes: Sequence[int] | None = None,
    *,
    centred: bool = True,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Dataset:
    """Load handwritten digits, 8 by 8 pixels, from scikit-learn; nothing is downloaded.

    Pixels are divided by 16, so that they lie in [0, 1].

    Args:
        classes: Which digits. Two, (a, b): digit a gets the label -1 and b gets +1. More: the
            label is the position in ``classes``. None: all ten, the label is the digit.
        centred: Subtract from each pixel its mean over the points returned. Without it all images
            share a large common component, and a network without biases separates slowly.
        dtype: Floating-point type of x (and of labels -1, +1).
        device: Where to put the tensors; the default is the CPU.

    Returns:
        x (N, 64) and y (N,), in scikit-learn's order: N = 1797 for all, 357 for (3, 8).

    Raises:
        TypeError, ValueError: if classes are not two or more distinct digits, or dtype is not a
            floating-point type.

    Source: UCI "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998).

    >>> x, y = digits(classes=(3, 8))
    >>> x.shape, y.unique()
    (torch.Size([357, 64]), tensor([-1.,  1.], dtype=torch.float64))
    """
    wanted = tuple(range(10)) if classes is None else _digit_classes(classes)
    _check_dtype(dtype)
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    pixels, digit = (torch.as_tensor(values) for values in load_digits(return_X_y=True))
    keep = torch.isin(digit, torch.tensor(wanted))
    x = pixels[keep].to(torch.float64) / 16
    if centred:
        x = x - x.mean(dim=0)
    y = _labels(digit[keep].long(), wanted, dtype)
    return Dataset(x.to(device=device, dtype=dtype), y.to(device=device))


def cifar10(
    num_train: int | None = None,
    num_test: int | None = None,
    *,
    classes: Sequence[int] | None = None,
    folder: str | os.PathLike[str] | None = None,
    centred: bool = True,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> tuple[Dataset, Dataset]:
    """Load CIFAR-10, color images of 32 by 32 pixels, as a training and a test set.

    The classes 0 .. 9 are airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck.
    The files are looked for in ``folder``; else in the folder that the environment variable
    COMPANION_CIFAR10 names; else they are downloaded once, 170 MB, into the user's cache. They
    are pickles, but reading them runs no code of theirs: all but a batch of images is refused.

    Pixels are divided by 255, so that they lie in [0, 1]. All 50,000 images in float32 take 614
    MB, hence the dtype; those not asked for are not converted::

        train, test = cifar10(num_train=10_000)     # train.x (10000, 3, 32, 32)

    Args:
        num_train: How many training images, the first in the order of the files; None: all. The
            50,000 have 5,000 of each class, the first of them only roughly as many of each: in
            the official files, from 937 to 1032 among the first 10,000.
        num_test: How many test images, likewise; the 10,000 have 1,000 of each class.
        classes: Which classes. Two, (a, b): class a gets the label -1 and b gets +1. More: the
            label is the position in ``classes``. None: all ten, the label is the class.
        folder: The folder cifar-10-batches-py of the official archive, or the one it lies in.
        centred: Subtract from each pixel and channel its mean over the training images returned,
            from the test images, too.
        dtype: Floating-point type of x (and of labels -1, +1).
        device: Where to put the tensors; the default is the CPU.

    Returns:
        The training and the test set, each x (N, 3, 32, 32), channels red, green, blue, and y (N,).

    Raises:
        TypeError, ValueError: if an argument is not as described, a file is missing or is not a
            batch of CIFAR-10, or a downloaded archive has the wrong SHA-256.
        OSError: if the archive cannot be downloaded; it says where to put it.

    Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
    """
    wanted = tuple(range(10)) if classes is None else _digit_classes(classes)
    for name, num in (("num_train", num_train), ("num_test", num_test)):
        if num is not None:
            _checks.integer(name, num, at_least=1)
    _check_dtype(dtype)
    place = _cifar10.find(folder)
    train = _cifar10.read("num_train", num_train, place, _cifar10.TRAIN, classes=wanted)
    test = _cifar10.read("num_test", num_test, place, _cifar10.TEST, classes=wanted)
    mean = train[0].sum(axis=0, dtype=np.int64) / (255 * len(train[0]))  # exact in any order

    def dataset(pixels: np.ndarray, labels: np.ndarray) -> Dataset:
        x = torch.from_numpy(pixels).to(dtype).div_(255)  # on the CPU: a GPU may round otherwise
        if centred:
            x -= torch.from_numpy(mean).to(dtype)
        y = _labels(torch.from_numpy(labels), wanted, dtype)
        return Dataset(x.view(-1, 3, 32, 32).to(device=device), y.to(device=device))

    return dataset(*train), dataset(*test)


def cifar10_checksum(folder: str | os.PathLike[str] | None = None) -> str:
    """Return a SHA-256 of all images and labels of CIFAR-10, to be stored beside results.

    It depends on pixels, labels and their order, but not on how the files were pickled; copies
    that went through JPEG have another one than the official files. Per file, training files
    first, it runs over the line "name N", the N images and the N labels, one byte per number.

    Args:
        folder: As in :func:`cifar10`.

    Raises:
        TypeError, ValueError, OSError: as :func:`cifar10` does for the files.
    """
    return _cifar10.checksum(_cifar10.find(folder))


def separable(
    num_points: int,
    dim: int,
    *,
    margin: float,
    seed: int,
    num_support: int | None = None,
    spread: float = 1.0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> SeparableDataset:
    """Draw a separable set whose maximum margin is known by construction.

    A unit vector v is drawn, and support vectors ``y_n x_n = margin v + p_n`` are planted with
    p_n orthogonal to v and ``sum_n a_n p_n = 0`` for weights a_n > 0; this certifies that v is
    the direction of maximum margin (see :class:`SeparableDataset`). The remaining points lie at
    distance at least ``1.1 margin`` from the hyperplane, plus the size of a normal variable.

    Args:
        num_points: N, at least 2 (both labels occur).
        dim: d, at least 1.
        margin: Distance of the support vectors from the hyperplane through 0, in the units of x.
        seed: Seed of a local generator; the draw is made in float64 on the CPU.
        num_support: Number of support vectors planted; default min(d, N). Between 2 and d they
            are in general position, so their dual weights are unique.
        spread: Standard deviation of the points along the hyperplane, in the units of x.
        dtype: Floating-point type of x and y.
        device: Where to put the tensors; the default is the CPU.

    Raises:
        TypeError, ValueError: if an argument is out of range.

    >>> s = separable(20, 3, margin=0.5, seed=0)
    >>> round((s.y * (s.x @ s.direction)).min().item(), 12)
    0.5
    """
    N = _checks.integer("num_points", num_points, at_least=2)
    d = _checks.integer("dim", dim, at_least=1)
    gamma, sigma = _checks.positive("margin", margin), _checks.positive("spread", spread)
    _checks.integer("seed", seed, at_least=0)
    S = min(d, N) if num_support is None else num_support
    if _checks.integer("num_support", S, at_least=1) > (N if d > 1 else 1):
        raise ValueError(f"num_support must be at most {N if d > 1 else 1}, got {S}.")
    _check_dtype(dtype)
    generator = torch.Generator().manual_seed(seed)
    v = _unit_vector(d, generator)
    along = gamma * torch.ones(N, dtype=torch.float64)
    along[S:] = 1.1 * gamma + sigma * _randn(N - S, generator=generator).abs()
    planted, weights = _balanced_offsets(S, v, sigma, generator)
    others = _project(sigma * _randn(N - S, d, generator=generator), v)
    signed = along[:, None] * v + torch.cat([planted, others])  # y_n x_n, (N, d)
    y = torch.ones(N, dtype=torch.float64)
    y[torch.randperm(N, generator=generator)[: N // 2]] = -1
    order = torch.randperm(N, generator=generator)
    alpha = torch.cat([weights, torch.zeros(N - S, dtype=torch.float64)])
    x, y, alpha = (y[:, None] * signed)[order], y[order], alpha[order]
    x, y, v, alpha = (t.to(device=device, dtype=dtype) for t in (x, y, v, alpha))
    return SeparableDataset(x, y, v, gamma, alpha)


def three_points(
    *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
) -> SeparableDataset:
    """Return the points (1, 1), (1, -2), (3, 0), all labelled +1: two support vectors, by hand.

    The maximum margin is 1, at v = (1, 0), with ``2/3 (1, 1) + 1/3 (1, -2) = (1, 0)``. No single
    point is parallel to v among the support vectors, so at the limit of gradient descent the sum
    over support vectors vanishes and its terms do not.

    Raises:
        TypeError: if dtype is not a floating-point type.

    >>> s = three_points()
    >>> (s.weights * s.y) @ s.x
    tensor([1., 0.], dtype=torch.float64)
    """
    _check_dtype(dtype)
    like = {"dtype": dtype, "device": device}
    return SeparableDataset(
        x=torch.tensor([[1.0, 1.0], [1.0, -2.0], [3.0, 0.0]], **like),
        y=torch.ones(3, **like),
        direction=torch.tensor([1.0, 0.0], **like),
        margin=1.0,
        weights=torch.tensor([2 / 3, 1 / 3, 0.0], **like),
    )


def quadrants(
    num_points: int,
    *,
    seed: int,
    radius: tuple[float, float] = (0.6, 1.4),
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Dataset:
    """Draw points of the plane labelled by their quadrant, ``y = sign(x_1 x_2)``.

    No line separates the labels; a ReLU network with two layers does, and its zero line can be
    drawn, so that one sees which points carry the margin.

    Args:
        num_points: N, at least 2.
        seed: Seed of a local generator; the draw is made in float64 on the CPU.
        radius: Smallest and largest distance from the origin, uniform between, as the angle is.
        dtype: Floating-point type of x and y.
        device: Where to put the tensors; the default is the CPU.

    Raises:
        TypeError, ValueError: if an argument is out of range, or one label is missing.

    >>> x, y = quadrants(12, seed=12)
    >>> bool((y == torch.sign(x[:, 0] * x[:, 1])).all())
    True
    """
    N = _checks.integer("num_points", num_points, at_least=2)
    _checks.integer("seed", seed, at_least=0)
    low, high = (_checks.positive(f"radius[{i}]", r) for i, r in enumerate(radius))
    if low >= high:
        raise ValueError(f"radius must be (smallest, largest), in this order, got {radius}.")
    _check_dtype(dtype)
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * torch.pi * torch.rand(N, generator=generator, dtype=torch.float64)
    distance = low + (high - low) * torch.rand(N, 1, generator=generator, dtype=torch.float64)
    x = distance * torch.stack([angle.cos(), angle.sin()], dim=1)
    y = torch.sign(x[:, 0] * x[:, 1])
    if bool((y == y[0]).all()):
        raise ValueError(f"num_points, seed: all {N} points drawn have the label {y[0]:+.0f}.")
    return Dataset(x.to(device=device, dtype=dtype), y.to(device=device, dtype=dtype))


def _digit_classes(classes: Sequence[int]) -> tuple[int, ...]:
    wanted = _checks.integers("classes", classes, at_least=0)
    if len(wanted) < 2 or len(set(wanted)) < len(wanted) or max(wanted) > 9:
        raise ValueError(f"classes must be two or more distinct digits 0 .. 9, got {wanted}.")
    return wanted


def _labels(numbers: Tensor, wanted: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Turn class numbers into positions in ``wanted``, or into -1 and +1 if it has two."""
    position = torch.full((10,), -1)
    position[list(wanted)] = torch.arange(len(wanted))
    y = position[numbers]
    return (2 * y - 1).to(dtype) if len(wanted) == 2 else y


def _check_dtype(dtype: torch.dtype) -> None:
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating-point type, got {dtype}.")


def _randn(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _unit_vector(dim: int, generator: torch.Generator) -> Tensor:
    v = _randn(dim, generator=generator)
    return v / v.norm()


def _project(points: Tensor, v: Tensor) -> Tensor:
    """Remove the component along v; twice, since once leaves a rounding error of the points."""
    for _ in range(2):
        points = points - torch.outer(points @ v, v)
    return points


def _balanced_offsets(
    num: int, v: Tensor, spread: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return offsets p (num, d) orthogonal to v and weights a > 0, sum 1, with a . p = 0."""
    weights = 0.5 + torch.rand(num, generator=generator, dtype=torch.float64)
    weights = weights / weights.sum()
    free = _project(spread * _randn(num - 1, len(v), generator=generator), v)
    last = -(weights[:-1] @ free) / weights[-1]
    return torch.cat([free, last[None]]), weights
