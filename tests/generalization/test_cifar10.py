"""The CIFAR-10 experiment: the packaged images, one network, the stored results, the command."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path

import pytest
import torch

from companion import data, networks
from companion.data import Dataset
from companion.generalization import cifar10

STORED = cifar10.STORED


def small(train: int = 40, test: int = 40) -> tuple[Dataset, Dataset]:
    a, b = cifar10.subset()
    return Dataset(a.x[:train], a.y[:train]), Dataset(b.x[:test], b.y[:test])


def test_subset_holds_thirty_images_of_each_class() -> None:
    for images in cifar10.subset():
        assert images.x.shape == (300, 3, 32, 32) and images.x.dtype == torch.float32
        assert torch.equal(images.y.bincount(), torch.full((10,), 30))
        assert images.x.abs().max() <= 1
    assert cifar10.subset()[0].x.mean(0).abs().max() < 1e-6


def test_a_network_repeats_bit_for_bit_and_its_record_is_what_torch_measures() -> None:
    train, test = small()
    record = cifar10.train_network(train, test, scale=1.0, seed=3)
    assert record == cifar10.train_network(train, test, scale=1.0, seed=3)
    assert record.train_error == 0 and record.min_margin > 0 and record.epochs >= 1
    # Near f = 0 the cross-entropy is log C less the mean score, to second order in f.
    for loss, score in (
        (record.normalized_train_loss, record.train_score),
        (record.normalized_test_loss, record.test_score),
    ):
        assert abs(math.log(10) - score - loss) < 0.1 * abs(score) + 1e-4


def test_losses_agree_with_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = small()
    kept = {}
    plain = cifar10.training.train

    def spy(*arguments, **options):
        kept["run"] = plain(*arguments, **options)
        return kept["run"]

    monkeypatch.setattr(cifar10.training, "train", spy)
    record = cifar10.train_network(train, test, scale=0.5, seed=0)
    W = {k: v[0].double() for k, v in kept["run"].params.items()}
    h = test.x.double()
    for name in ("W1", "W2"):
        h = torch.relu(torch.nn.functional.conv2d(h, W[name], stride=2, padding=1))
    f = h.flatten(1) @ W["W3"].T
    loss = torch.nn.functional.cross_entropy
    assert record.test_loss == pytest.approx(loss(f, test.y).item(), rel=1e-9)
    rho = math.prod(record.rho)
    assert rho == pytest.approx(math.prod(v.norm().item() for v in W.values()), rel=1e-9)
    assert record.normalized_test_loss == pytest.approx(loss(f / rho, test.y).item(), rel=1e-9)
    assert record.test_error == (f.argmax(1) != test.y).double().mean().item()


def test_permuted_labels_are_fitted_too_with_smaller_scores() -> None:
    train, test = cifar10.subset()
    true = cifar10.train_network(train, test, scale=1.0, seed=0)
    permuted = cifar10.train_network(train, test, scale=1.0, seed=0, labels="permuted")
    assert permuted.train_error == 0 and permuted.labels == "permuted"
    assert permuted.normalized_train_loss > true.normalized_train_loss
    assert permuted.train_score < true.train_score and permuted.test_error > true.test_error


def test_a_network_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "MAX_EPOCHS", 1)
    with pytest.raises(
        RuntimeError, match=r"scale 1.0, seed 0, true labels: training error 0\.\d+"
    ):
        cifar10.train_network(*small(), scale=1.0, seed=0)


def test_bad_arguments() -> None:
    train, test = small()
    with pytest.raises(ValueError, match="labels must be one of 'true', 'permuted', got 'random'"):
        cifar10.train_network(train, test, scale=1.0, seed=0, labels="random")
    with pytest.raises(ValueError, match="scale must be finite and greater than 0"):
        cifar10.train_network(train, test, scale=0.0, seed=0)
    with pytest.raises(ValueError, match=r"num_train must be one of \(5000, 10000\), got 7"):
        cifar10.stored(7)


@pytest.mark.parametrize("num_train", STORED)
def test_stored_results_are_what_the_caption_describes(num_train: int) -> None:
    result = cifar10.stored(num_train)
    true = [record for record in result.records if record.labels == "true"]
    assert len(true) >= 12 and len({record.scale for record in true}) >= 5
    assert [record.labels for record in result.records].count("permuted") == 1
    for record in result.records:
        assert record.train_error == 0 and record.min_margin > 0
        assert len(record.rho) == cifar10.NET.K
        # Dividing by rho does not change which class is largest.
        assert 0 < record.test_error < 0.95
    assert result.provenance["images"]["train"] == num_train
    assert result.provenance["network"] == repr(cifar10.NET)
    assert len(result.provenance["code"]["commit"]) == 40  # of a clean checkout
    assert {(r.scale, r.seed) for r in true} == {
        (scale, seed) for scale in cifar10.SCALES for seed in cifar10.SEEDS
    }


def test_a_changed_file_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cifar10._SHA256, 10_000, hashlib.sha256(b"other").hexdigest())
    with pytest.raises(ValueError, match="the stored result has the SHA-256"):
        cifar10.stored()


def test_load_refuses_other_files(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    for text in ("no json", "[]", "{}", '{"provenance": {}, "records": [{"scale": 1}]}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="path must be a result of the experiment"):
            cifar10.load(path)
    with pytest.raises(FileNotFoundError):
        cifar10.load(tmp_path / "nothing.json")


def test_the_command_resumes_and_writes_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = small()
    monkeypatch.setattr(data, "cifar10", lambda num_train: (train, test))
    monkeypatch.setattr(data, "cifar10_checksum", lambda: "0" * 64)
    monkeypatch.setattr(cifar10, "SCALES", (0.5, 1.0))
    trained = []
    plain = cifar10.train_network

    def spy(*arguments, **options):
        if len(trained) == 3 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        trained.append((options["scale"], options["seed"], options["labels"]))
        return plain(*arguments, **options)

    monkeypatch.setattr(cifar10, "train_network", spy)
    options = ["--images", "40", "--cache", str(tmp_path / "cache"), "--note", "forty"]
    output = tmp_path / "result.json"
    cifar10._images.cache_clear(), cifar10._checksum.cache_clear()
    with pytest.raises(KeyboardInterrupt):
        cifar10.main([*options, "--output", str(output)])
    assert len(trained) == 3 and not output.exists()
    (tmp_path / "again").touch()
    assert cifar10.main([*options, "--output", str(output)]) == 0
    assert len(trained) == len(set(trained)) == 5  # four on true labels, one on permuted ones
    other = tmp_path / "other.json"
    cifar10.main(["--images", "40", "--cache", str(tmp_path / "new"), "--note", "forty",
                  "--output", str(other)])  # fmt: skip
    assert other.read_bytes() == output.read_bytes() and len(trained) == 10
    result = cifar10.load(output)
    assert [dataclasses.asdict(r) for r in result.records] == [
        {**entry, "rho": tuple(entry["rho"])} for entry in json.loads(output.read_text())["records"]
    ]
    assert result.provenance["images"] == {"train": 40, "sha256": "0" * 64, "note": "forty"}
    cifar10._images.cache_clear(), cifar10._checksum.cache_clear()


def test_a_job_checks_which_images_it_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "_checksum", lambda: "1" * 64)
    with pytest.raises(ValueError, match="checksum must be that of the images, 11"):
        cifar10.job(
            num_train=40,
            checksum="2" * 64,
            code=None,
            scale=1.0,
            seed=0,
            labels="true",
            device="cpu",
        )


def test_network_has_three_layers_and_no_bias() -> None:
    assert cifar10.NET.K == 3 and cifar10.NET.layer_names == ("W1", "W2", "W3")
    params = cifar10.NET.init(seed=0)
    x = cifar10.subset()[0].x[:2].double()
    scaled = networks.compose(torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64), params)
    torch.testing.assert_close(cifar10.NET(scaled, x), 30 * cifar10.NET(params, x))
