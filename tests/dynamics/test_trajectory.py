"""Records made by hand, and the equivalent margin against mpmath."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from companion import data, losses, networks
from companion.dynamics.trajectory import (
    LogLoss,
    LogTime,
    Objective,
    Recorder,
    Trajectory,
    drawdown,
    equivalent_margin,
    largest_fall,
    margins_of,
)
from companion.networks import MLP

POINTS = data.three_points()
LINEAR = MLP(widths=(2, 1))


def record(**fields: list) -> Trajectory:
    """A path of five records of a two-layer network, with the given columns."""
    blank = torch.zeros(5, dtype=torch.float64)
    columns = {
        "log_inverse_loss": blank,
        "log_time": blank,
        "hard_margin": blank,
        "smoothed_margin": blank,
        "support_vector": blank.long(),
        "accuracy": blank + 1,
        "rho": torch.ones(5, 2, dtype=torch.float64),
        "evaluations": blank.long(),
        "norm_correction": blank,
    }
    columns |= {
        name: torch.tensor(values, dtype=columns[name].dtype) for name, values in fields.items()
    }
    empty = torch.zeros(0, dtype=torch.long)
    return Trajectory(
        **columns,
        params={},
        snapshots={},
        snapshot_index=empty,
        snapshot_level=empty.double(),
        reached=True,
    )


def exact_equivalent_margin(l: float) -> mpmath.mpf:  # noqa: E741
    """The m with log(1 + e^-m) = e^-l."""
    return -mpmath.log(mpmath.expm1(mpmath.exp(-mpmath.mpf(l))))


@given(l=st.floats(-50, 1000))
def test_equivalent_margin_of_the_logistic_loss(l: float) -> None:  # noqa: E741
    with mpmath.workdps(60):
        exact = exact_equivalent_margin(l)
        # Relative where the margin is large, -exp(50) at the lower end, absolute near its zero.
        assert abs(equivalent_margin(l, "logistic") - exact) < 2e-15 * max(abs(exact), 1)


@pytest.mark.parametrize("l", [-50.0, -1.0, 0.0, 0.3665, 0.3666, 1.0, 36.9, 37.0, 37.1, 1000.0])
def test_equivalent_margin_at_its_joints(l: float) -> None:  # noqa: E741
    with mpmath.workdps(60):
        exact = exact_equivalent_margin(l)
        assert abs(equivalent_margin(l, "logistic") - exact) < 2e-15 * max(abs(exact), 1)
    assert equivalent_margin(l, "exponential") == l


def test_equivalent_margin_is_that_of_one_example() -> None:
    """A single example of margin m has the loss whose equivalent margin is m."""
    for m in (-3.0, -0.1, 0.0, 2.0, 30.0, 600.0):
        for loss in losses.KINDS:
            l = -float(losses.log_loss(torch.tensor([m], dtype=torch.float64), loss))  # noqa: E741
            assert equivalent_margin(l, loss) == pytest.approx(m, rel=1e-14, abs=1e-14)


def test_equivalent_margin_refuses_other_losses() -> None:
    with pytest.raises(ValueError, match="loss must be one of 'exponential', 'logistic'"):
        equivalent_margin(1.0, "hinge")


@pytest.mark.parametrize(
    ("values", "fall"),
    [
        ([], 0.0),
        ([1.0], 0.0),
        ([1.0, 2.0, 3.0], 0.0),
        ([4.0, 3.0, 3.0, 1.5, 9.0], 0.5),
        ([-1.0, -1.5, 0.0, 0.0], 0.5),  # relative to the size, whatever the sign
        ([0.0, 0.0, 2.0, 1.0], 0.5),  # zeros that stay do not hide what follows
        ([0.0, -1.0], math.inf),
    ],
)
def test_largest_fall(values: list[float], fall: float) -> None:
    assert largest_fall(torch.tensor(values)) == fall


def test_drawdown_counts_from_the_highest_value_so_far() -> None:
    assert drawdown(torch.tensor([1.0, 2.0, 1.75, 1.5, 1.75, 4.0, 3.5])) == 0.25
    assert drawdown(torch.tensor([1.0, 2.0, 3.0])) == 0.0
    path = record(hard_margin=[9.0, 1.0, 0.75, 0.5, 2.0], accuracy=[0.5, 1.0, 1.0, 1.0, 1.0])
    assert path.hard_margin_drawdown == 0.5  # and not from before separation
    assert path.hard_margin_fall == pytest.approx(1 / 3, rel=1e-15)


def test_separated_at_is_after_the_last_error() -> None:
    assert record(accuracy=[0.5, 1.0, 0.9, 1.0, 1.0]).separated_at == 3
    assert record(accuracy=[1.0] * 5).separated_at == 0
    with pytest.raises(ValueError, match="never separates the data"):
        _ = record(accuracy=[1.0, 1.0, 1.0, 1.0, 0.9]).separated_at


def test_monotone_from_is_where_the_smoothed_margin_turns_positive() -> None:
    assert record(smoothed_margin=[-1.0, 0.2, -0.1, 0.0, 0.1]).monotone_from == 4
    assert record(smoothed_margin=[0.1, 0.2, 0.3, 0.4, 0.5]).monotone_from == 0
    with pytest.raises(ValueError, match="never reaches a positive smoothed margin"):
        _ = record(smoothed_margin=[0.1, 0.2, 0.3, 0.4, -0.5]).monotone_from


def test_falls_are_counted_only_where_the_theorems_speak() -> None:
    path = record(
        smoothed_margin=[-1.0, -9.0, 1.0, 0.9, 2.0],
        hard_margin=[0.5, 0.1, 1.0, 0.75, 2.0],
        accuracy=[0.8, 0.7, 1.0, 1.0, 1.0],
    )
    assert path.smoothed_margin_fall == pytest.approx(0.1, rel=1e-15)
    assert path.hard_margin_fall == 0.25


def test_switches_are_positions_of_a_new_support_vector_after_separation() -> None:
    path = record(support_vector=[7, 3, 3, 5, 3], accuracy=[0.9, 1.0, 1.0, 1.0, 1.0])
    assert path.switches.tolist() == [3, 4]
    assert record(support_vector=[2] * 5).switches.tolist() == []
    assert record(support_vector=[0, 1, 2, 2, 2]).switches.tolist() == [1, 2]


def test_norm_drift_measures_what_lemma_1_conserves() -> None:
    squares = torch.tensor([[1.0, 2.0], [2.0, 3.0], [4.0, 5.0], [8.0, 9.5], [16.0, 17.0]])
    path = record(rho=squares.double().sqrt().tolist())
    # rho_2^2 - rho_1^2 was 1 and is 1.5 at the fourth record, whose mean square is 8.75.
    assert path.norm_drift == pytest.approx(0.5 / 8.75, rel=1e-12)
    assert record(rho=[[1.0], [2.0], [3.0], [4.0], [5.0]]).norm_drift == 0.0


def test_targets() -> None:
    assert LogLoss(-10.0).reached(-10.0, math.nan) and not LogLoss(-10.0).reached(-9.9, 1e9)
    assert LogTime(5.0).reached(0.0, 5.0) and not LogTime(5.0).reached(-1e9, 4.9)


@pytest.mark.parametrize("loss", losses.KINDS)
@pytest.mark.parametrize("activation", ["relu", "linear", "leaky_relu"])
def test_objective_against_autograd(loss: str, activation: str) -> None:
    net = MLP(widths=(2, 4, 3, 1), activation=activation)
    params = net.init(seed=1)
    x, y = data.quadrants(12, seed=12)

    def l_of(W: networks.Params) -> torch.Tensor:
        m = y * net(W, x)
        each = torch.exp(-m) if loss == "exponential" else torch.log1p(torch.exp(-m))
        return -torch.log(each.sum())

    value, margins, grad = Objective(net, params, x, y, loss)(params)
    assert value == pytest.approx(l_of(params).item(), rel=1e-14)
    torch.testing.assert_close(margins, margins_of(net, params, x, y), rtol=0, atol=0)
    torch.testing.assert_close(grad, torch.func.grad(l_of)(params), rtol=1e-12, atol=1e-14)


def test_recorder_measures_a_point_of_the_path() -> None:
    params = {"W1": torch.tensor([[2.0, 0.0]], dtype=torch.float64)}
    l, margins, _ = Objective(LINEAR, params, POINTS.x, POINTS.y, "exponential")(params)  # noqa: E741
    recorder = Recorder("exponential", [])
    recorder.add(l, margins, params, log_time=0.5, evaluations=7, correction=0.25)
    path = recorder.finish(params, reached=True)
    total = 2 * math.exp(-2.0) + math.exp(-6.0)  # margins 2, 2 and 6
    assert path.log_inverse_loss.item() == pytest.approx(-math.log(total), rel=1e-15)
    assert path.smoothed_margin.item() == pytest.approx(-math.log(total) / 2, rel=1e-15)
    assert path.hard_margin.item() == 1.0 and path.accuracy.item() == 1.0
    assert path.rho.tolist() == [[2.0]] and path.evaluations.tolist() == [7]
    assert path.norm_correction.tolist() == [0.25] and path.log_time.tolist() == [0.5]
    assert path.snapshots["W1"].shape == (0, 1, 2)


def test_recorder_keeps_a_snapshot_of_each_level_reached() -> None:
    """A step that passes several levels counts for each; a level beyond the end is absent."""
    recorder = Recorder("exponential", [1.0, 2.0, 9.0, -5.0, 10.0])
    for l in (-6.0, -3.0, 2.5, 4.0, 9.0):  # noqa: E741
        params = {"W1": torch.tensor([[l, 1.0]], dtype=torch.float64)}
        recorder.add(l, torch.ones(3).double(), params, log_time=0.0, evaluations=1)
    path = recorder.finish(params, reached=False)
    assert path.snapshot_index.tolist() == [1, 2, 2, 4]
    assert path.snapshot_level.tolist() == [-5.0, 1.0, 2.0, 9.0]
    assert path.snapshots["W1"][:, 0, 0].tolist() == [-3.0, 2.5, 2.5, 9.0]
    assert path.snapshot(1)["W1"].tolist() == [[2.5, 1.0]]
    assert not path.reached


def test_objective_refuses_margins_that_overflow() -> None:
    params = {"W1": torch.tensor([[1e308, 1e308]], dtype=torch.float64)}
    objective = Objective(LINEAR, {"W1": POINTS.x[:1]}, POINTS.x, POINTS.y, "exponential")
    with pytest.raises(ValueError, match="margins must be finite"):
        objective(params)


def test_recorder_has_no_margins_where_a_layer_is_zero() -> None:
    params = {"W1": torch.zeros(1, 2, dtype=torch.float64)}
    l, margins, _ = Objective(LINEAR, params, POINTS.x, POINTS.y, "exponential")(params)  # noqa: E741
    recorder = Recorder("exponential", [])
    recorder.add(l, margins, params, log_time=0.0, evaluations=1)
    recorder.add(2.0, margins + 1, {"W1": POINTS.x[:1]}, log_time=0.0, evaluations=2)
    path = recorder.finish(params, reached=True)
    assert path.hard_margin.isnan().tolist() == [True, False]
    assert path.smoothed_margin.isnan().tolist() == [True, False]
    assert path.accuracy.tolist() == [0.0, 1.0] and path.rho[0].tolist() == [0.0]
    assert path.separated_at == path.monotone_from == 1 and path.norm_drift == 0.0


def test_equivalent_margin_where_the_loss_overflows() -> None:
    assert equivalent_margin(-710.0, "logistic") == -math.inf
    assert equivalent_margin(-709.0, "logistic") < -1e307


@pytest.mark.parametrize("target", [LogLoss, LogTime])
def test_targets_must_be_numbers(target: type) -> None:
    with pytest.raises(TypeError, match="value must be a number, got 'a'"):
        target("a")


def test_files_of_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    path, file = record(), tmp_path / "new" / "path.pt"
    path.save(file)
    assert [entry.name for entry in file.parent.iterdir()] == ["path.pt"]
    again = Trajectory.load(file, device=device)
    assert again.rho.device.type == device and torch.equal(again.rho.cpu(), path.rho)
    assert Trajectory.load(str(file)).rho.device.type == "cpu"

    def interrupted(content: object, part: Path) -> None:
        part.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        path.save(file)
    assert Trajectory.load(file).reached  # the old file is whole


def test_foreign_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "path.pt"

    def refused() -> None:
        with pytest.raises(ValueError, match="path must be a file .* Trajectory.save, got .*path"):
            Trajectory.load(file)

    torch.save({"rho": torch.zeros(1)}, file)
    refused()
    torch.save(Trajectory, file)  # a class, which is not unpickled
    refused()
    file.write_bytes(file.read_bytes()[:-30])
    refused()
    file.write_text("no tensors")
    refused()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "no tensors")
    refused()
    with pytest.raises(FileNotFoundError):
        Trajectory.load(tmp_path / "none.pt")
