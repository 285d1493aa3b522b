"""Training: against torch.optim.SGD, alone and in company, stopped, resumed, saved, diverging."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from companion import data, losses, networks, training
from companion.networks import MLP, ConvNet, Network
from companion.training import TrainingRun, Until, train

X, Y = data.digits(classes=(3, 8))
X, Y = X[:60], Y[:60]
X3, Y3 = data.digits(classes=(1, 4, 7))
X3, Y3 = X3[:45], Y3[:45]
SCALAR = MLP(widths=(64, 10, 8, 1))
THREE = MLP(widths=(64, 10, 3), activation="leaky_relu")
CONV = ConvNet(input_shape=(1, 8, 8), channels=(3,))
CASES = [
    (SCALAR, X, Y, "logistic"),
    (SCALAR, X, Y, "exponential"),
    (SCALAR, X, Y, "square"),
    (THREE, X3, Y3, "cross_entropy"),
    (THREE, X3, torch.nn.functional.one_hot(Y3, 3).double(), "square"),
    (CONV, X, Y, "logistic"),
]
every_case = pytest.mark.parametrize(("net", "x", "y", "loss"), CASES)


def mean_loss(loss: str, f: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The mean loss of one network, written with torch's own losses."""
    if loss == "logistic":
        return torch.nn.functional.softplus(-y * f).mean()
    if loss == "exponential":
        return torch.exp(-y * f).mean()
    if loss == "cross_entropy":
        return torch.nn.functional.cross_entropy(f, y)
    return (f - y).square().sum() / len(y)


def loop(
    net: Network,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    seed: int,
    scale: float,
    loss: str,
    lr: float,
    steps: int,
    batch_size: int | None,
    momentum: float,
) -> tuple[dict[str, torch.Tensor], float]:
    """Train one network with autograd and torch.optim.SGD; return weights and final loss."""
    start = net.init(seed=seed, scale=scale, dtype=x.dtype)
    params = {k: W.requires_grad_() for k, W in start.items()}
    optimizer = torch.optim.SGD(params.values(), lr=lr, momentum=momentum)
    size = batch_size or len(x)
    per_epoch = math.ceil(len(x) / size)
    for step in range(steps):
        epoch, j = divmod(step, per_epoch)
        order = np.arange(len(x))
        if batch_size is not None:
            bits = np.random.Philox(key=[seed, epoch])
            order = np.random.Generator(bits).permutation(len(x))
        batch = torch.from_numpy(order[j * size : (j + 1) * size])
        optimizer.zero_grad()
        mean_loss(loss, net(params, x[batch]), y[batch]).backward()
        optimizer.step()
    with torch.no_grad():
        final = mean_loss(loss, net(params, x), y).item()
    return {k: W.detach() for k, W in params.items()}, final


STRIDE_1 = ConvNet(input_shape=(1, 8, 8), channels=(3,), stride=1)


@pytest.mark.parametrize("net", [SCALAR, CONV, STRIDE_1], ids=["mlp", "by hand", "grouped"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str
)
@pytest.mark.parametrize("batch_size", [None, 16])
def test_a_hundred_steps_keep_the_weights_of_the_loop(
    net: Network, dtype: torch.dtype, tolerance: float, batch_size: int | None
) -> None:
    x, y = X.to(dtype), Y.to(dtype)
    knobs: dict[str, Any] = {"loss": "logistic", "lr": 0.01, "steps": 100, "momentum": 0.0}
    run = train(net, x, y, seeds=[3, 4], **knobs, batch_size=batch_size)
    for m, seed in enumerate((3, 4)):
        params, _ = loop(net, x, y, seed=seed, scale=1.0, **knobs, batch_size=batch_size)
        for name, W in networks.member(run.params, m).items():
            assert (W - params[name]).norm() <= tolerance * params[name].norm()


@pytest.mark.parametrize("net", [SCALAR, CONV, STRIDE_1], ids=["mlp", "by hand", "grouped"])
@pytest.mark.parametrize("batch_size", [None, 16])
def test_the_size_of_the_cache_changes_rounding_only(
    net: Network, batch_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    knobs: dict[str, Any] = {"seeds": range(5), "lr": 0.1, "steps": 20, "batch_size": batch_size}
    expected = train(net, X, Y, **knobs)
    rows = batch_size or len(X)
    for at_once in (1, 2):
        size = at_once * rows * net._numbers_per_point(rows, X) * X.dtype.itemsize
        monkeypatch.setattr(networks, "CACHE_BYTES", size)
        assert net.at_once(rows, X) == at_once
        run = train(net, X, Y, **knobs)
        for name, W in run.params.items():
            torch.testing.assert_close(W, expected.params[name], rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(run.log_loss, expected.log_loss, rtol=1e-11, atol=1e-12)
        monkeypatch.undo()


def assert_same_run(got: TrainingRun, want: TrainingRun) -> None:
    """Bit for bit."""
    for field in fields(TrainingRun):
        a, b = getattr(got, field.name), getattr(want, field.name)
        if isinstance(b, torch.Tensor):
            assert torch.equal(a, b), field.name
        elif isinstance(b, dict):
            assert all(torch.equal(a[name], b[name]) for name in b), field.name
        else:
            assert a == b, field.name


@every_case
@pytest.mark.parametrize(("batch_size", "momentum"), [(None, 0.0), (16, 0.9)])
def test_agrees_with_a_loop_of_torch_optim_sgd(
    net: Network,
    x: torch.Tensor,
    y: torch.Tensor,
    loss: str,
    batch_size: int | None,
    momentum: float,
) -> None:
    knobs: dict[str, Any] = {"loss": loss, "lr": 0.01, "steps": 10, "momentum": momentum}
    knobs["batch_size"] = batch_size
    run = train(net, x, y, seeds=[3, 4], scales=[0.5, 1.0], **knobs)
    for m, (seed, scale) in enumerate(((3, 0.5), (4, 1.0))):
        params, final = loop(net, x, y, seed=seed, scale=scale, **knobs)
        for name, W in networks.member(run.params, m).items():
            torch.testing.assert_close(W, params[name], rtol=1e-11, atol=1e-12)
        assert run.log_loss[-1, m].exp().item() == pytest.approx(final, rel=1e-11)
    assert run.steps.tolist() == [10, 10]


@every_case
def test_a_network_alone_reproduces_its_copy_in_the_ensemble(
    net: Network, x: torch.Tensor, y: torch.Tensor, loss: str
) -> None:
    knobs: dict[str, Any] = {
        "loss": loss,
        "lr": 0.01,
        "steps": 30,
        "batch_size": 13,
        "momentum": 0.5,
    }
    together = train(net, x, y, seeds=[5, 0, 9], scales=[0.5, 1.0, 2.0], **knobs)
    alone = train(net, x, y, seeds=[0], scales=1.0, **knobs)
    for name, W in alone.params.items():
        assert (together.params[name][1] - W[0]).abs().max() <= 1e-12 * W.abs().max()
    assert (together.log_loss[:, 1] - alone.log_loss[:, 0]).abs().max() <= 1e-12


def test_each_epoch_visits_every_point_once_in_an_order_of_its_own() -> None:
    seeds = (0, networks.MAX_SEED)
    recipe = training._Recipe(SCALAR, seeds, (1.0, 1.0), "logistic", 0.1, 7, 0.0, None, None)
    points = torch.arange(60.0)
    steps = training._minibatches(recipe, torch.tensor([0, 1]), points[:, None], -points, 0, 18)
    steps = [(x_b.squeeze(2), y_b) for x_b, y_b in steps]
    assert [x_b.shape[1] for x_b, _ in steps] == 2 * [*8 * [7], 4]
    assert all(torch.equal(y_b, -x_b) for x_b, y_b in steps)
    epochs = [torch.cat([x_b for x_b, _ in steps[9 * e : 9 * e + 9]], dim=1) for e in range(2)]
    for epoch, order in enumerate(epochs):
        assert torch.equal(order.sort(dim=1).values, points.expand(2, 60))
        for m, seed in enumerate(seeds):
            bits = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64))
            expected = np.random.Generator(bits).permutation(60)
            assert order[m].tolist() == expected.tolist()
    middle = training._minibatches(recipe, torch.tensor([1]), points[:, None], points, 12, 13)
    assert torch.equal(next(middle)[1], steps[12][0][1:])


def test_histories_are_those_of_the_recorded_weights() -> None:
    run = train(SCALAR, X, Y, seeds=[0, 1], lr=0.1, steps=25, batch_size=20, record_every=10)
    assert run.recorded_steps.tolist() == [0, 10, 20, 25]
    assert run.log_loss.shape == run.error.shape == (4, 2)
    f = SCALAR(run.params, X)
    expected = losses.log_loss(losses.margins(f, Y), "logistic", reduction="mean")
    torch.testing.assert_close(run.log_loss[-1], expected, rtol=1e-14, atol=0)
    assert torch.equal(run.error[-1], (Y * f <= 0).double().mean(dim=1))
    start = SCALAR(SCALAR.init(seed=[0, 1]), X)
    assert torch.equal(run.error[0], (Y * start <= 0).double().mean(dim=1))


def test_error_of_several_classes() -> None:
    run = train(THREE, X3, Y3, seeds=[0], loss="cross_entropy", lr=0.1, steps=3)
    predicted = THREE(run.params, X3)[0].argmax(dim=-1)
    assert run.error[-1, 0].item() == pytest.approx((predicted != Y3).double().mean().item())


def test_networks_that_are_done_stop_moving() -> None:
    knobs: dict[str, Any] = {"lr": 0.5, "batch_size": 20, "scales": [0.3, 1.0, 3.0]}
    until = Until(error=0.0, log_loss=-2.0)
    run = train(SCALAR, X, Y, seeds=[0, 1, 2], steps=600, until=until, **knobs)
    assert run.done.all()
    assert len(set(run.steps.tolist())) > 1, "the networks should stop at different steps"
    for m in range(3):
        last = int((run.recorded_steps == run.steps[m]).nonzero())
        met = (run.error[:, m] == 0) & (run.log_loss[:, m] <= -2.0)
        assert met[last:].all() and not met[:last].any()
        assert (run.log_loss[last:, m] == run.log_loss[last, m]).all()
        knobs_m = {**knobs, "scales": knobs["scales"][m]}
        short = train(SCALAR, X, Y, seeds=[m], steps=int(run.steps[m]), **knobs_m)
        for name, W in short.params.items():
            torch.testing.assert_close(run.params[name][m], W[0], rtol=1e-11, atol=1e-12)
    assert run.recorded_steps[-1] == run.steps.max()


def test_until_that_holds_at_the_start_takes_no_step() -> None:
    run = train(SCALAR, X, Y, seeds=[0], lr=0.1, steps=50, until=Until(log_loss=100.0))
    assert run.steps.tolist() == [0] and run.done.tolist() == [True]
    assert torch.equal(run.params["W1"], SCALAR.init(seed=[0])["W1"])
    without = train(SCALAR, X, Y, seeds=[0], lr=0.1, steps=0)
    assert without.done.tolist() == [False]


class Interrupted(Exception):
    """Stands for a lost machine."""


def interrupt_after(monkeypatch: pytest.MonkeyPatch, records: int) -> None:
    original, count = training._advance, 0

    def advance(*args: Any) -> None:
        nonlocal count
        count += 1
        if count > records:
            raise Interrupted
        original(*args)

    monkeypatch.setattr(training, "_advance", advance)


@pytest.mark.parametrize("until", [None, Until(log_loss=-6.0)], ids=["steps", "until"])
def test_interrupted_training_resumes_bit_for_bit(
    until: Until | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    knobs: dict[str, Any] = {
        "seeds": [0, 1, 2],
        "scales": [0.3, 1.0, 3.0],
        "lr": 0.2,
        "steps": 200,
        "batch_size": 13,
        "momentum": 0.9,
        "record_every": 7,
        "until": until,
    }
    whole = train(SCALAR, X, Y, **knobs)
    file = tmp_path / "runs" / "digits.pt"
    for records in (2, 3):
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            interrupt_after(patch, records)
            train(SCALAR, X, Y, checkpoint=file, checkpoint_seconds=0, **knobs)
    resumed = train(SCALAR, X, Y, checkpoint=file, **knobs)
    assert_same_run(resumed, whole)
    with monkeypatch.context() as patch:  # nothing is left to do
        interrupt_after(patch, 0)
        assert_same_run(train(SCALAR, X, Y, checkpoint=file, **knobs), whole)
    assert [path.name for path in file.parent.iterdir()] == ["digits.pt"]


def test_a_finished_run_can_be_continued_for_more_steps(tmp_path: Path) -> None:
    knobs: dict[str, Any] = {"seeds": [0, 1], "lr": 0.2, "batch_size": 20, "momentum": 0.9}
    file = tmp_path / "run.pt"
    train(SCALAR, X, Y, steps=30, checkpoint=file, **knobs)
    longer = train(SCALAR, X, Y, steps=60, checkpoint=file, **knobs)
    assert_same_run(longer, train(SCALAR, X, Y, steps=60, **knobs))
    with pytest.raises(ValueError, match="steps must be at least the 60 already in"):
        train(SCALAR, X, Y, steps=50, checkpoint=file, **knobs)


def test_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.pt"
    train(SCALAR, X, Y, seeds=[0], lr=0.2, steps=2, checkpoint=file)
    with pytest.raises(ValueError, match="is of another training: its lr is 0.2, not 0.3"):
        train(SCALAR, X, Y, seeds=[0], lr=0.3, steps=2, checkpoint=file)
    with pytest.raises(ValueError, match=r"its seeds is \(0,\), not \(1,\)"):
        train(SCALAR, X, Y, seeds=[1], lr=0.2, steps=2, checkpoint=file)
    with pytest.raises(ValueError, match="is of another training: its data is"):
        train(SCALAR, X, -Y, seeds=[0], lr=0.2, steps=2, checkpoint=file)
    with pytest.raises(ValueError, match="path must be a file written by TrainingRun.save"):
        TrainingRun.load(file)
    train(SCALAR, X, Y, seeds=[0], lr=0.2, steps=2).save(file)
    with pytest.raises(ValueError, match="checkpoint must be a file written by train"):
        train(SCALAR, X, Y, seeds=[0], lr=0.2, steps=2, checkpoint=file)


def test_run_is_saved_and_loaded(tmp_path: Path) -> None:
    run = train(SCALAR, X, Y, seeds=[0, 1], scales=[1.0, 2.0], lr=0.1, steps=3)
    run.save(tmp_path / "run.pt")
    assert_same_run(TrainingRun.load(tmp_path / "run.pt"), run)
    with pytest.raises(FileNotFoundError):
        TrainingRun.load(tmp_path / "none.pt")


def test_a_network_that_diverges_is_named_with_its_step() -> None:
    net = MLP(widths=(64, 10, 8, 1), activation="linear")
    message = r"network 1 \(seed 8, scale 30.0\) became non-finite between steps \d+ and \d+"
    with pytest.raises(FloatingPointError, match=message):
        train(net, X, Y, seeds=[7, 8], scales=[0.1, 30.0], lr=1e-3, steps=200, loss="square")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_device_follow_the_data(dtype: torch.dtype, device: str) -> None:
    x, y = X.to(device, dtype), Y.to(device, dtype)
    run = train(SCALAR, x, y, seeds=[0, 1], lr=0.1, steps=4, batch_size=20)
    assert run.params["W1"].dtype == run.log_loss.dtype == dtype
    assert run.params["W1"].device.type == run.log_loss.device.type == device
    moved = train(
        SCALAR, X, Y, seeds=[0, 1], lr=0.1, steps=4, batch_size=20, dtype=dtype, device=device
    )
    assert_same_run(moved, run)


def test_training_leaves_data_and_global_generator_alone() -> None:
    x, y = X.clone(), Y.clone()
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    train(SCALAR, x, y, seeds=range(2), lr=0.1, steps=4, batch_size=20)
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(x, X) and torch.equal(y, Y)


def test_progress_is_silent_while_the_book_is_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BOOK_BUILD", "1")
    assert list(training.progress(range(3), delay=0)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    monkeypatch.delenv("BOOK_BUILD")
    assert list(training.progress(range(3), delay=0, desc="training")) == [0, 1, 2]
    assert "training" in capsys.readouterr().err


GOOD: dict[str, Any] = {"seeds": [0], "lr": 0.1, "steps": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": []}, "seeds must hold at least one integer"),
        ({"seeds": 3}, "seeds must be a sequence of integers, got 3"),
        ({"scales": [1.0, 2.0]}, r"scales must be one number or one per seed \(1\), got 2"),
        ({"scales": -1.0}, r"scales\[0\] must be finite and greater than 0, got -1.0"),
        ({"loss": "hinge"}, "loss must be one of 'logistic'"),
        ({"lr": 0.0}, "lr must be finite and greater than 0"),
        ({"steps": -1}, "steps must be at least 0, got -1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"record_every": 0}, "record_every must be at least 1, got 0"),
        ({"until": 0.1}, "until must be a training.Until, got 0.1"),
        ({"checkpoint_seconds": -1}, "checkpoint_seconds must be finite and at least 0"),
        ({"y": Y[:-1]}, r"y must have shape \(60,\), got \(59,\)"),
        ({"y": 2 * Y}, r"y must hold only the labels -1 and \+1"),
        ({"y": (Y > 0).long()}, "y must be a floating-point tensor"),
        ({"x": X / 0}, "x must be finite"),
        ({"x": X[:0], "y": Y[:0]}, r"x must have shape \(N, d\), N >= 1"),
        ({"x": X[:, :5]}, r"x must have shape \(N, 64\)"),
        ({"x": X.numpy()}, "x must be a torch.Tensor, got ndarray"),
        ({"loss": "cross_entropy"}, "net must have at least 2 outputs for loss 'cross_entropy'"),
        ({"net": THREE}, "net must have 1 output for loss 'logistic', got 3"),
        (
            {"net": THREE, "loss": "cross_entropy", "y": torch.full((60,), 3)},
            r"y must lie in 0 \.\. 2, got 3",
        ),
        ({"loss": "square", "y": Y / 0}, "y must be finite"),
    ],
)
def test_invalid_arguments_are_named(change: dict[str, Any], message: str) -> None:
    call = {"net": SCALAR, "x": X, "y": Y, **GOOD, **change}
    with pytest.raises((ValueError, TypeError), match=message):
        train(call.pop("net"), call.pop("x"), call.pop("y"), **call)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Until(), "until must ask for an error, a log_loss or both"),
        (lambda: Until(error=1.0), r"error must be a fraction in \[0, 1\), got 1.0"),
        (lambda: Until(error=-0.1), "error must be finite and at least 0"),
        (lambda: Until(log_loss=math.nan), "log_loss must be finite, got nan"),
    ],
)
def test_invalid_stopping_rules_are_named(make: Callable[[], Until], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_foreign_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "run.pt"
    file.write_text("no tensors")
    with pytest.raises(ValueError, match="path must be a file written by TrainingRun.save, got"):
        TrainingRun.load(file)
    with pytest.raises(ValueError, match="checkpoint must be a file written by train, got"):
        train(SCALAR, X, Y, seeds=[0], lr=0.2, steps=2, checkpoint=file)


def test_until_cannot_change_in_a_checkpoint(tmp_path: Path) -> None:
    options = {"seeds": [0], "lr": 0.2, "checkpoint": tmp_path / "run.pt"}
    train(SCALAR, X, Y, steps=2, until=Until(log_loss=-50.0), **options)
    with pytest.raises(ValueError, match="another training: its until is"):
        train(SCALAR, X, Y, steps=4, until=Until(log_loss=-60.0), **options)
    assert int(train(SCALAR, X, Y, steps=4, until=Until(log_loss=-50.0), **options).steps) == 4


def test_doctests_leave_the_environment_alone() -> None:
    assert "environ[" not in training.progress.__doc__
