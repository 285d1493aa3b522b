"""Many networks trained at once, against a loop of ``nn.Module`` and ``optim.SGD``, and vmap.

The same networks take the same steps on the same minibatches of digits 3 and 8, in float32, on one
thread; drawing weights and minibatches is part of everybody's time, the processor's. ``_vs_loop``:
one network after the other, as one trains a single one. ``_vs_vmap``: all at once, by
``torch.func.vmap`` of the gradient. Each layer of each network must be the loop's to 1e-5 of its
norm in the end. Where batching loses (``conv16``) the package loops by itself: the same speed.

    python -m benchmarks.ensemble --device cuda --output result.json

measures the same with twice as many networks on a GPU, by the clock on the wall.
``benchmarks/gpu.json`` holds such a result.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from benchmarks.comparison import Comparison
from companion import data, training
from companion.networks import MLP, ConvNet, Network, Params

REPEATS = 3
AGREEMENT = 1e-5  # of the norm of a layer


@dataclass(frozen=True)
class Problem:
    """M networks, with seeds 0 .. M-1, to be trained with the logistic loss.

    ``bars`` are those against the loop and against vmap.
    """

    net: Network
    x: Tensor
    y: Tensor
    num_networks: int
    batch_size: int | None
    bars: tuple[float, float]
    lr: float = 0.01  # a z that rounding carries over its kink costs about lr / B
    steps: int = 100

    def init(self) -> Params:
        """Draw the weights of all networks."""
        like = {"dtype": self.x.dtype, "device": self.x.device}
        return self.net.init(seed=range(self.num_networks), **like)

    def on(self, device: str, times: int) -> Problem:
        """Return the problem on another device, with that many times as many networks."""
        moved = {"x": self.x.to(device), "y": self.y.to(device)}
        return replace(self, **moved, num_networks=times * self.num_networks, bars=(1, 1))

    def module(self, weights: list[Tensor]) -> nn.Module:
        """Return one network as torch's own modules, with these weights."""
        layers: list[nn.Module] = []
        for W in weights[:-1]:
            if isinstance(self.net, ConvNet):
                pad = self.net.kernel_size // 2
                knobs = {"stride": self.net.stride, "padding": pad, "bias": False}
                layers += [nn.Conv2d(W.shape[1], W.shape[0], W.shape[2], **knobs), nn.ReLU()]
            else:
                layers += [nn.Linear(W.shape[1], W.shape[0], bias=False), nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(weights[-1].shape[1], 1, bias=False), nn.Flatten(0)]
        module = nn.Sequential(*layers).to(self.x.dtype)
        for parameter, W in zip(module.parameters(), weights, strict=True):
            parameter.data = W.clone()
        return module

    def minibatches(self, m: int) -> Iterator[Tensor]:
        """Yield the points of each step of network m, as training.train visits them."""
        for epoch in itertools.count():
            generator = np.random.Generator(np.random.Philox(key=[m, epoch]))
            order = torch.from_numpy(generator.permutation(len(self.x)))
            yield from order.to(self.x.device).split(self.batch_size)


def run(device: str = "cpu") -> dict[str, Comparison]:
    """Measure everything: on one thread of the processor, or twice the networks on a GPU."""
    results = {}
    for name, problem in _problems().items():
        if device != "cpu":
            problem = problem.on(device, times=2)
        seconds, trained = _measure({"ours": _ours, "loop": _loop, "vmap": _vmap}, problem)
        for peer, bar in zip(("loop", "vmap"), problem.bars, strict=True):
            _require_agreement(f"{name}, {peer}", trained["ours"], trained[peer])
            results[f"ensemble_{name}_vs_{peer}"] = Comparison.of_costs(
                1e3 * seconds["ours"] / problem.steps,
                1e3 * seconds[peer] / problem.steps,
                unit="ms per step",
                bar=bar,
                note=f"{problem.num_networks} {problem.net}, batch {problem.batch_size or 'full'}",
            )
    return results


def _problems() -> dict[str, Problem]:
    x, y = (values.float() for values in data.digits(classes=(3, 8)))
    images = x.view(-1, 1, 8, 8)
    larger = nn.functional.interpolate(images, scale_factor=2, mode="bilinear")
    mlp = MLP(widths=(64, 64, 64, 1))
    small = ConvNet(input_shape=(1, 8, 8), channels=(8, 8, 8))
    large = ConvNet(input_shape=(1, 16, 16), channels=(16, 16, 16), stride=1)
    return {
        "batch64": Problem(mlp, x, y, 64, 64, bars=(6, 1)),
        "fullbatch": Problem(mlp, x, y, 64, None, bars=(1.8, 1)),
        "conv8": Problem(small, images, y, 32, 64, bars=(6, 1)),
        "conv8_fullbatch": Problem(small, images, y, 32, None, bars=(1.8, 1)),
        "conv16": Problem(large, larger[:128], y[:128], 4, 64, bars=(0.9, 0.9), steps=60),
    }


def _measure(
    train: dict[str, Callable[[Problem], Params]], problem: Problem
) -> tuple[dict[str, float], dict[str, Params]]:
    """Median seconds of each, taken in turn, and the weights."""
    seconds: dict[str, list[float]] = {name: [] for name in train}
    for _ in range(REPEATS):
        trained = {}
        for name, function in train.items():
            start = _clock(problem)
            trained[name] = function(problem)
            seconds[name].append(_clock(problem) - start)
    return {name: statistics.median(spent) for name, spent in seconds.items()}, trained


def _clock(problem: Problem) -> float:
    """Seconds that this process has worked, or that have passed once the GPU is through."""
    if problem.x.device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _ours(problem: Problem) -> Params:
    return training.train(
        problem.net,
        problem.x,
        problem.y,
        seeds=range(problem.num_networks),
        lr=problem.lr,
        steps=problem.steps,
        batch_size=problem.batch_size,
        record_every=problem.steps,
    ).params


def _loop(problem: Problem) -> Params:
    start, trained = problem.init(), []
    for m in range(problem.num_networks):
        module = problem.module([W[m] for W in start.values()])
        optimizer = torch.optim.SGD(module.parameters(), lr=problem.lr)
        batches = problem.minibatches(m)
        for _ in range(problem.steps):
            x, y = problem.x, problem.y
            if problem.batch_size is not None:
                batch = next(batches)
                x, y = x[batch], y[batch]
            optimizer.zero_grad()
            nn.functional.softplus(-y * module(x)).mean().backward()
            optimizer.step()
        trained.append([W.detach() for W in module.parameters()])
    return {name: torch.stack(W) for name, W in zip(start, zip(*trained, strict=True), strict=True)}


def _vmap(problem: Problem) -> Params:
    start = problem.init()
    module = problem.module([W[0] for W in start.values()])
    names = [name for name, _ in module.named_parameters()]

    def loss(params: Params, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.softplus(-y * functional_call(module, params, (x,))).mean()

    own = None if problem.batch_size is None else 0  # the axis of network m's own points
    gradients = vmap(grad(loss), in_dims=(0, own, own))
    batches = zip(*(problem.minibatches(m) for m in range(problem.num_networks)), strict=True)
    W = dict(zip(names, start.values(), strict=True))
    for _ in range(problem.steps):
        x, y = problem.x, problem.y
        if problem.batch_size is not None:
            batch = torch.stack(next(batches))
            x, y = x[batch], y[batch]
        for name, gradient in gradients(W, x, y).items():
            W[name].sub_(gradient, alpha=problem.lr)
    return dict(zip(start, W.values(), strict=True))


def _require_agreement(name: str, found: Params, expected: Params) -> None:
    for k, W in expected.items():
        errors = (found[k] - W).flatten(1).norm(dim=1) / W.flatten(1).norm(dim=1)
        if not errors.max() <= AGREEMENT:
            raise RuntimeError(f"{name}: {k} differs by {float(errors.max()):.1e} of its norm.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure on a device, and write what was found and where; see ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ensemble")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--output", help="JSON file to write")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # or convolutions agree to three digits only
    results = run(options.device)
    for name, result in results.items():
        print(f"{name:32} {result}\n{'':32} {result.note}", flush=True)
    if options.output:
        on_gpu = options.device != "cpu"
        device = torch.cuda.get_device_name() if on_gpu else platform.machine()
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        provenance = {"device": device, "date": time.strftime("%Y-%m-%d"), "versions": versions}
        found = {name: asdict(result) for name, result in results.items()}
        with open(options.output, "w", encoding="utf-8") as file:
            json.dump({"provenance": provenance, "results": found}, file, indent=1)
            file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
