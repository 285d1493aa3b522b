"""The experiment of Fig. 2 as its caption describes it, on CIFAR-10, and its stored result.

Three-layer convolutional networks without biases are trained to zero training error from several
scales of initialization and seeds, with no regularization, and one more on permuted labels; then
each layer is divided by its Frobenius norm. To run it again on ten thousand images:

    python -m companion.generalization.cifar10 --images 10000 --jobs 2 --output result.json

Interrupted, the same command goes on with the networks that are missing.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import companion
from companion import _checks, data, networks, sweeps, training
from companion.data import Dataset
from companion.generalization import normalized_loss

NET = networks.ConvNet(
    input_shape=(3, 32, 32), channels=(32, 64), num_classes=10, kernel_size=3, stride=2
)
SCALES = (0.1, 0.3, 0.6, 1.0, 1.5, 2.0)
SEEDS = (0, 1)
BATCH_SIZE = 100
MOMENTUM = 0.9
MAX_EPOCHS = 200
LABELS = ("true", "permuted")

STORED = (5_000, 10_000)  # numbers of training images
_SHA256 = {
    5_000: "807821f62fb517c7e2078ab1952e99ab24fdf9c11984e8b0d4a102fad6a9face",
    10_000: "3cd709751036cfcde3e918dbc9bbd2001b97cf4179f7333cce547d9c8ec9dd73",
}
_ROWS = 500  # images evaluated at once
_SUBSET = 300  # training images in the packaged subset, and as many test images


@dataclass(frozen=True)
class Record:
    """One trained network; losses are mean cross-entropies in nats.

    Args:
        scale: Scale of initialization.
        seed: Seed of initialization and minibatches.
        labels: "true", or "permuted": the training labels in random order.
        epochs: Epochs until no training image was misclassified.
        train_error, test_error: Fraction misclassified; the test labels are the true ones.
        train_loss, test_loss: Of the trained network.
        normalized_train_loss, normalized_test_loss: With each layer divided by its norm.
        train_score, test_score: Mean of ``f_y - mean_c f_c`` of the normalized network.
        min_margin: Smallest ``f_y - max f_c`` of the normalized network on the training images.
        rho: Frobenius norm of each layer.
    """

    scale: float
    seed: int
    labels: str
    epochs: int
    train_error: float
    test_error: float
    train_loss: float
    test_loss: float
    normalized_train_loss: float
    normalized_test_loss: float
    train_score: float
    test_score: float
    min_margin: float
    rho: tuple[float, ...]


@dataclass(frozen=True)
class Result:
    """Records of all networks, and what they came from.

    Args:
        provenance: Checksum of the images, versions of the code, hyperparameters, device.
        records: One per network.
    """

    provenance: dict[str, Any]
    records: tuple[Record, ...]


def step_size(scale: float) -> float:
    """Return the step size for a scale of initialization.

    Gradients in one layer grow like the product of the other two, so that larger networks need
    smaller steps.
    """
    return 0.03 / max(1.0, _checks.positive("scale", scale)) ** 2


def train_network(
    train: Dataset,
    test: Dataset,
    *,
    scale: float,
    seed: int,
    labels: str = "true",
    device: torch.device | str | None = None,
) -> Record:
    """Train one network to zero training error and measure it, normalized and not.

    Stochastic gradient descent with momentum on the cross-entropy, in float32, without weight
    decay or augmentation; losses are evaluated in float64, on the images as they are.

    Args:
        train, test: Images (N, 3, 32, 32) and classes 0 .. 9, (N,).
        scale: Scale of initialization.
        seed: Seed of initialization, minibatches and the permutation of labels.
        labels: "true" or "permuted".
        device: Where to train; default the CPU.

    Raises:
        TypeError, ValueError: if an argument is out of range.
        RuntimeError: if the network does not reach zero training error in MAX_EPOCHS epochs.

    Source: PNAS 2020, Fig. 2, caption.
    """
    _checks.choice("labels", labels, LABELS)
    y = train.y
    if labels == "permuted":
        y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]
    per_epoch = -(-len(y) // BATCH_SIZE)
    run = training.train(
        NET,
        train.x,
        y,
        seeds=[seed],
        scales=scale,
        loss="cross_entropy",
        lr=step_size(scale),
        momentum=MOMENTUM,
        batch_size=BATCH_SIZE,
        steps=MAX_EPOCHS * per_epoch,
        until=training.Until(error=0.0),
        dtype=torch.float32,
        device=device,
    )
    if not run.done[0]:
        raise RuntimeError(
            f"scale {scale}, seed {seed}, {labels} labels: training error "
            f"{run.error[-1, 0]:.4f} after {MAX_EPOCHS} epochs."
        )
    params = {name: W.double() for name, W in networks.member(run.params, 0).items()}
    on_train, on_test = _measure(params, train.x, y), _measure(params, test.x, test.y)
    return Record(
        scale=float(scale),
        seed=int(seed),
        labels=labels,
        epochs=int(run.steps[0]) // per_epoch,
        train_error=on_train["error"],
        test_error=on_test["error"],
        train_loss=on_train["loss"],
        test_loss=on_test["loss"],
        normalized_train_loss=on_train["normalized_loss"],
        normalized_test_loss=on_test["normalized_loss"],
        train_score=on_train["score"],
        test_score=on_test["score"],
        min_margin=on_train["min_margin"],
        rho=tuple(networks.layer_norms(params).tolist()),
    )


def job(
    *,
    num_train: int,
    checksum: str,
    code: str | None,
    scale: float,
    seed: int,
    labels: str,
    device: str,
) -> Record:
    """Train one network of a sweep; the images are those of :func:`companion.data.cifar10`.

    ``code`` is the commit; it keeps results of different ones apart in the cache.

    Raises:
        ValueError: if the images are not those with this checksum.
    """
    torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
    found = _checksum()
    if found != checksum:
        raise ValueError(f"checksum must be that of the images, {found}, got {checksum}.")
    train, test = _images(num_train)
    return train_network(train, test, scale=scale, seed=seed, labels=labels, device=device)


def jobs(num_train: int, *, device: str = "cpu") -> list[dict[str, Any]]:
    """Return the arguments of :func:`job` for every network of the experiment."""
    common = {
        "num_train": num_train,
        "checksum": _checksum(),
        "code": _commit(),
        "device": device,
    }
    grid = [(scale, seed, "true") for scale in SCALES for seed in SEEDS]
    return [
        {**common, "scale": scale, "seed": seed, "labels": labels}
        for scale, seed, labels in [*grid, (1.0, 0, "permuted")]
    ]


def stored(num_train: int = 10_000) -> Result:
    """Return a stored result of the experiment, after a check of its file's SHA-256.

    Raises:
        ValueError: if none is stored for this number of images, or the file was changed.
    """
    if num_train not in STORED:
        raise ValueError(f"num_train must be one of {STORED}, got {num_train}.")
    text = (resources.files(__package__) / f"cifar10_{num_train}.json").read_text("utf-8")
    found = hashlib.sha256(text.encode()).hexdigest()
    if found != _SHA256[num_train]:
        raise ValueError(f"the stored result has the SHA-256 {found}, not {_SHA256[num_train]}.")
    return _parse(text)


def load(path: str | os.PathLike[str]) -> Result:
    """Read a result that the command of this module wrote.

    Raises:
        ValueError: if the file holds something else.
        FileNotFoundError: if there is no file.
    """
    try:
        return _parse(Path(path).read_text("utf-8"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"path must be a result of the experiment, got {path}: {error}") from None


def subset() -> tuple[Dataset, Dataset]:
    """Return 300 training and 300 test images that come with the package, 30 of each class.

    They were re-encoded as JPEG before they were packaged. Pixels lie in [0, 1], less the mean
    of the training images at each pixel; float32.
    """
    with (resources.files(__package__) / "cifar10_subset.png").open("rb") as file:
        sheet = np.asarray(Image.open(file))  # 20 rows of 30 images; column j has class j mod 10
    images = sheet.reshape(20, 32, 30, 32, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32)
    x = torch.from_numpy(images.astype(np.float32) / 255)
    x = x - x[:_SUBSET].mean(0)
    y = torch.arange(_SUBSET) % 10
    return Dataset(x[:_SUBSET], y), Dataset(x[_SUBSET:], y)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment and write its result; see ``--help``."""
    options = _parser().parse_args(arguments)
    if options.folder:
        os.environ["COMPANION_CIFAR10"] = str(Path(options.folder).resolve())  # for workers, too
    records = sweeps.run(
        job, jobs(options.images, device=options.device), cache=options.cache, n_jobs=options.jobs
    )
    provenance = _provenance(options)
    document = {"provenance": provenance, "records": [asdict(record) for record in records]}
    part = Path(f"{options.output}.part")
    part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8", newline="\n")
    os.replace(part, options.output)
    print(f"{len(records)} networks, written to {options.output}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m companion.generalization.cifar10")
    parser.add_argument("--images", type=int, default=10_000, help="training images (10000)")
    parser.add_argument("--output", required=True, help="JSON file to write")
    parser.add_argument("--folder", help="cifar-10-batches-py; default: COMPANION_CIFAR10")
    parser.add_argument("--cache", default=".cifar10-sweep", help="folder of finished networks")
    parser.add_argument("--jobs", type=int, help="processes; -1 for all cores (1)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--note", default="", help="what to say of the images in the result")
    return parser


def _measure(params: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, float]:
    """Errors, losses, scores and margins of one network, evaluated in float64 in batches."""
    V = networks.directions(params)
    device = V["W1"].device
    f = torch.cat([NET(V, part.to(device).double()) for part in x.split(_ROWS)])
    y = y.to(device)
    rho = networks.product_norm(params)
    return {
        "error": float(normalized_loss.error(f, y)),
        "loss": float(normalized_loss.cross_entropy(rho * f, y)),
        "normalized_loss": float(normalized_loss.cross_entropy(f, y)),
        "score": float(normalized_loss.centred_scores(f, y).mean()),
        "min_margin": float(normalized_loss.class_margins(f, y).min()),
    }


def _provenance(options: argparse.Namespace) -> dict[str, Any]:
    device = platform.processor() or platform.machine()
    if options.device != "cpu":
        device = torch.cuda.get_device_name(options.device)
    return {
        "images": {"train": options.images, "sha256": _checksum(), "note": options.note},
        "network": repr(NET),
        "training": {
            "optimizer": "SGD",
            "momentum": MOMENTUM,
            "batch_size": BATCH_SIZE,
            "step_size": {str(scale): step_size(scale) for scale in SCALES},
            "dtype": "float32",
        },
        "scales": SCALES,
        "seeds": SEEDS,
        "code": {"companion": companion.__version__, "commit": _commit()},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "device": device,
    }


def _commit() -> str | None:
    """The commit of the code, "+changes" if the package differs from it; None outside git."""
    here = Path(companion.__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", str(here))
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _parse(text: str) -> Result:
    document = json.loads(text)
    names = {field.name for field in fields(Record)}
    records = []
    for entry in document["records"]:
        if set(entry) != names:
            raise ValueError(f"a record must have the fields {sorted(names)}.")
        records.append(Record(**{**entry, "rho": tuple(entry["rho"])}))
    return Result(provenance=document["provenance"], records=tuple(records))


@functools.lru_cache(maxsize=1)
def _images(num_train: int) -> tuple[Dataset, Dataset]:
    return data.cifar10(num_train=num_train)


@functools.lru_cache(maxsize=1)
def _checksum() -> str:
    return data.cifar10_checksum()


if __name__ == "__main__":
    # Under its own name, so that workers and the cache know the functions by their module.
    from companion.generalization import cifar10

    sys.exit(cifar10.main())
