"""CIFAR-10: what a folder gives, which files are refused, and the download, from a local server."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import os
import pickle
import socket
import struct
import tarfile
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from companion import _cifar10, data

FOLDER = "cifar-10-batches-py"
TRAIN = [f"data_batch_{i}" for i in range(1, 6)]
ROWS = dict(zip([*TRAIN, "test_batch"], (4, 3, 2, 5, 6, 7), strict=True))

# cPickle.dumps({"batch_label": ..., "labels": [3, 9], "data": numpy.arange(6144).astype("uint8")
# .reshape(2, 3072), "filenames": ["a.png", "b.png"]}, 2) of Python 2.7.18 and numpy 1.16.6,
# then zlib and base64. The official files were written in this way.
PYTHON_2 = (
    "eNprYKotZNQIZUlJLEksZErOK80tqNRLzi9K1cstzSnJTCwqSqzkii9KTc7PKy4pKk0u4SpkhqjiykuByBayeDO0hjIm"
    "tQcVsmp4M3oz+TLwtEHVpJRUFqRyFbKFMpUaejN4MwLVsGt4M4cy1vj5+Xn9BwIw4c1QktQZwiDBwMDAyMTMwsrGzsHJ"
    "xc3Dy8cvICgkLCIqJi4hKSUtIysnr6CopKyiqqauoamlraOrp29gaGRsYmpmbmFpZW1ja2fv4Ojk7OLq5u7h6eXt4+vn"
    "HxAYFBwSGhYeERkVHRMbF5+QmJSckpqWnpGZlZ2Tm5dfUFhUXFJaVl5RWVVdU1tX39DY1NzS2tbe0dnV3dPb1z9h4qTJ"
    "U6ZOmz5j5qzZc+bOm79g4aLFS5YuW75i5arVa9auW79h46bNW7Zu275j567de/bu23/g4KHDR44eO37i5KnTZ86eO3/h"
    "4qXLV65eu37j5q3bd+7eu//g4aPHT54+e/7i5avXb96+e//h46fPX75++/7j56/ff/7++z/q/1H/j/p/1P+j/h/1/6j/"
    "R/0/6v9R/4/6f9T/o/4f9f+o/0f9P+r/Uf+P+n/U/6P+H/X/cPR/SVIoW05iUmpOcSFHbCGnhjezN2dqKHdSYklyRjxY"
    "opArVLSkKDEzLzMvXQEsrmCokJ+mYFrIHcqZlpmTmpeYm1pcyBNbyKsRypqoV5CXXsgXypoEZvCnluoBAL+IRik="
)


def entries(num: int, seed: int) -> dict[bytes, Any]:
    """A batch as the official files have it, with few images."""
    generator = np.random.default_rng(seed)
    return {
        b"batch_label": b"a batch",
        b"labels": generator.integers(10, size=num).tolist(),
        b"data": generator.integers(256, size=(num, 3072), dtype=np.uint8),
        b"filenames": [f"{i}.png".encode() for i in range(num)],
    }


def write_batches(folder: Path, protocol: int = 2) -> dict[str, dict[bytes, Any]]:
    folder.mkdir(parents=True, exist_ok=True)
    batches = {name: entries(num, seed) for seed, (name, num) in enumerate(ROWS.items())}
    for name, batch in batches.items():
        (folder / name).write_bytes(pickle.dumps(batch, protocol=protocol))
    return batches


@dataclass
class Copy:
    """A folder on disk and what it should give."""

    folder: Path
    batches: dict[str, dict[bytes, Any]] = field(repr=False)

    def stacked(self, *names: str) -> tuple[np.ndarray, np.ndarray]:
        pixels = np.concatenate([self.batches[name][b"data"] for name in names])
        labels = np.concatenate([self.batches[name][b"labels"] for name in names])
        return pixels.reshape(-1, 3, 32, 32), labels


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    folder = tmp_path / "images" / FOLDER
    return Copy(folder, write_batches(folder))


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMPANION_CIFAR10", raising=False)


# --- what comes back -----------------------------------------------------------------------------


def test_pixels_are_scaled_and_labels_are_integers(copy: Copy) -> None:
    train, test = data.cifar10(folder=copy.folder, centred=False)
    for dataset, names in ((train, TRAIN), (test, ["test_batch"])):
        pixels, labels = copy.stacked(*names)
        assert dataset.x.dtype == torch.float32 and dataset.y.dtype == torch.int64
        assert (dataset.x.numpy() == pixels.astype(np.float32) / np.float32(255)).all()
        assert (dataset.y.numpy() == labels).all()
    assert train.x.shape == (20, 3, 32, 32) and test.x.shape == (7, 3, 32, 32)
    assert train.x.min() == 0 and train.x.max() == 1


@pytest.mark.parametrize("num", [1, 4, 5, 9, 20])
def test_both_sets_are_centred_on_the_training_images_returned(copy: Copy, num: int) -> None:
    train, test = data.cifar10(num, 3, folder=copy.folder, dtype=torch.float64)
    (first, _), (second, _) = copy.stacked(*TRAIN), copy.stacked("test_batch")
    mean = (first[:num] / 255).mean(axis=0)
    np.testing.assert_allclose(train.x.numpy(), first[:num] / 255 - mean, rtol=0, atol=1e-14)
    np.testing.assert_allclose(test.x.numpy(), second[:3] / 255 - mean, rtol=0, atol=1e-14)


def test_files_after_the_last_image_are_not_read(copy: Copy) -> None:
    (copy.folder / "data_batch_3").write_bytes(b"nonsense")
    train, _ = data.cifar10(7, folder=copy.folder)
    assert train.y.tolist() == copy.stacked(*TRAIN[:2])[1].tolist()
    with pytest.raises(ValueError, match="data_batch_3 is not a batch of CIFAR-10"):
        data.cifar10(8, folder=copy.folder)


@pytest.mark.parametrize("num", [None, 3])
def test_several_classes_are_numbered_by_position(copy: Copy, num: int | None) -> None:
    pixels, labels = copy.stacked(*TRAIN)
    classes = list(dict.fromkeys(labels[::-1].tolist()))[:3]
    keep = np.isin(labels, classes).nonzero()[0][:num]
    train, _ = data.cifar10(num, classes=classes, folder=copy.folder, centred=False)
    assert (train.x.numpy() == (pixels[keep] / np.float32(255))).all()
    assert train.y.tolist() == [classes.index(label) for label in labels[keep]]


def test_two_classes_are_labelled_with_signs(copy: Copy) -> None:
    classes = list(dict.fromkeys(copy.stacked("test_batch")[1].tolist()))[:2]
    for dataset, names in zip(
        data.cifar10(classes=classes, folder=copy.folder), (TRAIN, ["test_batch"]), strict=True
    ):
        labels = [label for label in copy.stacked(*names)[1] if label in classes]
        assert dataset.y.tolist() == [2 * classes.index(label) - 1 for label in labels]
        assert dataset.y.dtype == torch.float32 and len(dataset.x) == len(labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_device(copy: Copy, dtype: torch.dtype, device: str) -> None:
    for x, y in data.cifar10(5, folder=copy.folder, dtype=dtype, device=device):
        assert x.dtype == dtype and x.device.type == y.device.type == device


def test_the_folder_is_given_or_of_the_environment(
    copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = copy.stacked("test_batch")[1].tolist()
    for folder in (copy.folder, copy.folder.parent, str(copy.folder)):
        assert data.cifar10(folder=folder)[1].y.tolist() == expected
        monkeypatch.setenv("COMPANION_CIFAR10", str(folder))
        assert data.cifar10()[1].y.tolist() == expected
    monkeypatch.setenv("COMPANION_CIFAR10", str(tmp_path / "nowhere"))
    assert data.cifar10(folder=copy.folder)[1].y.tolist() == expected
    with pytest.raises(ValueError, match="COMPANION_CIFAR10 must be the folder .*nowhere"):
        data.cifar10()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_train": 0}, "num_train must be at least 1, got 0"),
        ({"num_train": 2.0}, "num_train must be an integer, got 2.0"),
        ({"num_test": -1}, "num_test must be at least 1, got -1"),
        ({"num_train": 21}, "num_train must be at most 20, .* got 21"),
        ({"num_test": 8}, "num_test must be at most 7, .* got 8"),
        ({"classes": (3,)}, "classes must be two or more distinct digits"),
        ({"classes": (3, 10)}, "classes must be two or more distinct digits"),
        ({"dtype": torch.uint8}, "dtype must be a floating-point type"),
        ({"folder": 3}, "folder must be a path, got 3"),
    ],
)
def test_invalid_arguments_are_named(copy: Copy, arguments: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        data.cifar10(**{"folder": copy.folder, **arguments})


def test_missing_files_are_named(copy: Copy) -> None:
    (copy.folder / "data_batch_2").unlink()
    (copy.folder / "test_batch").unlink()
    for folder in (copy.folder, copy.folder.parent):
        with pytest.raises(ValueError, match=f"no data_batch_2, test_batch in .*{FOLDER}"):
            data.cifar10(folder=folder)


# --- the files -----------------------------------------------------------------------------------


def read(content: bytes, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    path = folder / "data_batch_1"
    path.write_bytes(content)
    return _cifar10.batch(path)


def test_a_batch_of_python_2(tmp_path: Path) -> None:
    pixels, labels = read(zlib.decompress(base64.b64decode(PYTHON_2)), tmp_path)
    assert pixels.dtype == np.uint8 and labels.tolist() == [3, 9]
    assert (pixels == np.arange(6144).astype(np.uint8).reshape(2, 3072)).all()


@given(
    num=st.integers(1, 5),
    seed=st.integers(0, 10**6),
    protocol=st.integers(0, pickle.HIGHEST_PROTOCOL),
    text_keys=st.booleans(),
    order=st.sampled_from("CF"),
)
def test_batches_come_back_from_every_protocol(
    tmp_path_factory: pytest.TempPathFactory,
    num: int,
    seed: int,
    protocol: int,
    text_keys: bool,
    order: str,
) -> None:
    batch = entries(num, seed)
    batch[b"data"] = np.array(batch[b"data"], order=order)
    written = {key.decode(): value for key, value in batch.items()} if text_keys else batch
    pixels, labels = read(pickle.dumps(written, protocol), tmp_path_factory.getbasetemp())
    assert (pixels == batch[b"data"]).all()
    assert labels.tolist() == batch[b"labels"]


@pytest.mark.parametrize("protocol", [4, 5])
def test_both_names_of_the_modules_of_numpy(tmp_path: Path, protocol: int) -> None:
    """numpy 1 writes numpy.core, numpy 2 numpy._core."""
    batch = entries(2, seed=0)
    content = pickle.dumps(batch, protocol)
    short, long = b"numpy.core.", b"numpy._core."
    old, new = (short, long) if short in content else (long, short)
    start = content.index(old)
    length = content[start - 1] + len(new) - len(old)
    renamed = content[: start - 1] + bytes([length]) + content[start:].replace(old, new, 1)
    assert renamed[:3] == bytes([0x80, protocol]) + pickle.FRAME
    renamed = renamed[:3] + struct.pack("<Q", len(renamed) - 11) + renamed[11:]
    for version in (content, renamed):
        pixels, _ = read(version, tmp_path)
        assert (pixels == batch[b"data"]).all()


class Call:
    """Pickled as the call of a function."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("where", ["whole", "data", "labels", "filenames", "key"])
def test_functions_are_refused_and_not_called(tmp_path: Path, where: str, protocol: int) -> None:
    mark = tmp_path / "called"
    for function, argument in ((os.system, f"echo > {mark}"), (os.mkdir, str(mark))):
        call, batch = Call(function, argument), entries(2, seed=0)
        content = {
            "whole": call,
            "data": {**batch, b"data": call},
            "labels": {**batch, b"labels": [3, call]},
            "filenames": {**batch, b"filenames": [call]},
            "key": {**batch, call: 0},
        }[where]
        with pytest.raises(ValueError, match=f"refers to .*{function.__name__}, which no batch"):
            read(pickle.dumps(content, protocol), tmp_path)
        assert not mark.exists()


@pytest.mark.parametrize(
    "function", [eval, getattr, __import__, np.load, np.array, np.fromfile, bytearray, Call]
)
def test_only_the_functions_of_an_array_are_allowed(tmp_path: Path, function: Callable) -> None:
    with pytest.raises(ValueError, match="data_batch_1 is not a batch of CIFAR-10: it refers to"):
        read(pickle.dumps({**entries(1, seed=0), b"x": Call(function, "1")}), tmp_path)


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    batch = {**entries(1, seed=0), b"data": np.array([[Call(os.getcwd)]], dtype=object)}
    with pytest.raises(ValueError, match="it refers to .*getcwd"):
        read(pickle.dumps(batch), tmp_path)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        batch[b"data"] = np.full((1, 3072), None, dtype=object)
        with pytest.raises(ValueError, match="data must be an array of uint8, got O8"):
            read(pickle.dumps(batch, protocol), tmp_path)


@pytest.mark.parametrize("module_name", ["numpy\ndtype", "numpy\nndarray", "_codecs\nencode"])
def test_a_pickle_cannot_change_the_classes_that_read_it(tmp_path: Path, module_name: str) -> None:
    """BUILD sets attributes of whatever is on the stack, here of what the name stands for."""
    classes = set(_cifar10._STAND_INS.values())
    before = {c: dict(vars(c)) for c in classes}
    for state in ({"pixels": 1}, (None, {"pixels": 1, "code": "u1"})):
        build = pickle.dumps(state, 2)[2:-1] + pickle.BUILD + pickle.STOP
        with pytest.raises(ValueError, match="is not a batch of CIFAR-10"):
            read(b"\x80\x02c" + module_name.encode() + b"\n" + build, tmp_path)
    assert before == {c: dict(vars(c)) for c in classes}


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        (pickle.NONE + pickle.LONG_BINPUT + b"\xff\xff\xff\x7f.", "place 2147483647 of its memo"),
        (pickle.NONE + pickle.PUT + b"2147483647\n.", "place 2147483647 of its memo"),
        (pickle.BINBYTES8 + struct.pack("<Q", 2**40) + b"x.", "expected .* bytes"),
        (pickle.BYTEARRAY8 + struct.pack("<Q", 2**40) + b"x.", "expected .* bytes"),
        (pickle.FRAME + struct.pack("<Q", 2**40) + b"N.", ".+"),
    ],
)
def test_false_sizes_take_no_memory(tmp_path: Path, operations: bytes, message: str) -> None:
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"is not a batch of CIFAR-10: .*{message}"):
        read(b"\x80\x05" + operations, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10**6


@given(cut=st.floats(0, 1, exclude_max=True), protocol=st.sampled_from([2, 4, 5]))
def test_truncated_files_are_refused(
    tmp_path_factory: pytest.TempPathFactory, cut: float, protocol: int
) -> None:
    content = pickle.dumps(entries(1, seed=0), protocol)
    with pytest.raises(ValueError, match="data_batch_1 is not a batch of CIFAR-10: .+"):
        read(content[: int(cut * len(content))], tmp_path_factory.getbasetemp())


@given(
    place=st.floats(0, 1, exclude_max=True),
    change=st.integers(1, 255),
    protocol=st.sampled_from([2, 4, 5]),
)
def test_a_changed_byte_gives_a_batch_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, place: float, change: int, protocol: int
) -> None:
    """The bytes around the pixels matter more than the pixels, which are shared by one value."""
    batch = {**entries(1, seed=0), b"filenames": [b"x"]}
    content = bytearray(pickle.dumps(batch, protocol))
    pixels = content.find(batch[b"data"].tobytes()) if protocol > 2 else -1
    outside = [i for i in range(len(content)) if pixels < 0 or not 0 <= i - pixels < 3072]
    content[outside[int(place * len(outside))]] ^= change
    try:
        pixels_read, labels = read(bytes(content), tmp_path_factory.getbasetemp())
    except ValueError as error:
        assert "data_batch_1 is not a batch of CIFAR-10: " in str(error)
    else:
        assert pixels_read.shape == (len(labels), 3072) and 0 <= min(labels) <= max(labels) <= 9


IMAGES = np.zeros((2, 3072), dtype=np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "it holds a list, not a dict"),
        ({b"labels": [1, 2]}, "it has no entry 'data'"),
        ({b"data": IMAGES}, "it has no entry 'labels'"),
        ({b"data": IMAGES.tolist(), b"labels": [1, 2]}, "an array of uint8, got list"),
        ({b"data": IMAGES.astype(np.float32), b"labels": [1, 2]}, "an array of uint8, got f4"),
        ({b"data": IMAGES.astype(np.int8), b"labels": [1, 2]}, "an array of uint8, got i1"),
        ({b"data": IMAGES[:, :3071].copy(), b"labels": [1, 2]}, r"\(N, 3072\).*got \(2, 3071\)"),
        ({b"data": IMAGES[0], b"labels": [1]}, r"\(N, 3072\).*got \(3072,\)"),
        ({b"data": IMAGES.reshape(2, 3, 32, 32), b"labels": [1, 2]}, r"got \(2, 3, 32, 32\)"),
        # Protocol 2 writes no bytes as a call of bytes().
        ({b"data": IMAGES[:0], b"labels": []}, r"(N > 0, got \(0, 3072\)|refers to .*bytes)"),
        ({b"data": IMAGES, b"labels": [1, 2, 3]}, "a label per image, got 3 for 2"),
        ({b"data": IMAGES, b"labels": []}, "a label per image, got 0 for 2"),
        ({b"data": IMAGES, b"labels": [1, 10]}, r"labels must lie in 0 .. 9, got 1 .. 10"),
        ({b"data": IMAGES, b"labels": [-1, 3]}, r"labels must lie in 0 .. 9, got -1 .. 3"),
        ({b"data": IMAGES, b"labels": [1, 2.0]}, "labels must be a list of integers"),
        ({b"data": IMAGES, b"labels": [True, 2]}, "labels must be a list of integers"),
        ({b"data": IMAGES, b"labels": (1, 2)}, "labels must be a list of integers"),
        ({b"data": IMAGES, b"labels": IMAGES[:, 0].copy()}, "labels must be a list of integers"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_wrong_contents_are_named(
    tmp_path: Path, content: object, message: str, protocol: int
) -> None:
    with pytest.raises(ValueError, match=f"data_batch_1 is not a batch of CIFAR-10: .*{message}"):
        read(pickle.dumps(content, protocol), tmp_path)


# --- the checksum --------------------------------------------------------------------------------


def test_checksum_against_its_definition(copy: Copy) -> None:
    digest = hashlib.sha256()
    for name, num in ROWS.items():
        batch = copy.batches[name]
        digest.update(f"{name} {num}\n".encode() + batch[b"data"].tobytes())
        digest.update(bytes(batch[b"labels"]))
    assert data.cifar10_checksum(copy.folder) == digest.hexdigest()


def test_checksum_sees_contents_and_not_the_pickling(
    copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = data.cifar10_checksum(copy.folder)
    write_batches(tmp_path / FOLDER, protocol=5)
    monkeypatch.setenv("COMPANION_CIFAR10", str(tmp_path))
    assert data.cifar10_checksum() == first
    found = {first}
    for change in ("pixel", "label", "order"):
        batch = entries(ROWS["test_batch"], seed=5)
        if change == "pixel":
            batch[b"data"][6, 3071] ^= 1
        elif change == "label":
            batch[b"labels"][0] = (batch[b"labels"][0] + 1) % 10
        else:
            batch[b"data"] = batch[b"data"][::-1].copy()
        (tmp_path / FOLDER / "test_batch").write_bytes(pickle.dumps(batch))
        found.add(data.cifar10_checksum())
    assert len(found) == 4


# --- the download --------------------------------------------------------------------------------


@dataclass
class Server:
    """A server of one archive, and the cache that a download goes to."""

    cache: Path
    content: bytes = b""
    failures: int = 0  # answers 503 so many times first
    requests: list[str] = field(default_factory=list)

    @property
    def archive(self) -> Path:
        return self.cache / "cifar-10-python.tar.gz"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server(cache=tmp_path / "cache")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append(self.path)
            self.send_response(503 if len(state.requests) <= state.failures else 200)
            self.end_headers()
            self.wfile.write(state.content)

        def log_message(self, *arguments: object) -> None:
            pass

    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http_server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(_cifar10, "ADDRESS", f"http://127.0.0.1:{http_server.server_port}/")
    monkeypatch.setattr(pooch, "os_cache", lambda name: state.cache)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between two attempts
    yield state
    http_server.shutdown()
    http_server.server_close()


def pack(folder: Path, monkeypatch: pytest.MonkeyPatch, *extra: tarfile.TarInfo) -> bytes:
    """An archive of a folder, made the official one."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for info in extra:
            tar.addfile(info, io.BytesIO(b"x" * info.size))
        tar.add(folder, FOLDER)
    monkeypatch.setattr(_cifar10, "SHA256", hashlib.sha256(buffer.getvalue()).hexdigest())
    return buffer.getvalue()


def test_the_archive_is_downloaded_once(
    copy: Copy, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content = pack(copy.folder, monkeypatch)
    for _ in range(2):
        train, _ = data.cifar10()
        assert train.y.tolist() == copy.stacked(*TRAIN)[1].tolist()
        assert server.requests == ["/cifar-10-python.tar.gz"]
    assert sorted(path.name for path in server.cache.iterdir()) == [FOLDER, server.archive.name]
    assert data.cifar10_checksum() == data.cifar10_checksum(copy.folder)
    (server.cache / FOLDER / "test_batch").unlink()  # as after a kill between two files
    assert data.cifar10_checksum() == data.cifar10_checksum(copy.folder)
    assert len(server.requests) == 1


def test_a_failing_server_is_asked_again(
    copy: Copy, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content, server.failures = pack(copy.folder, monkeypatch), 2
    data.cifar10()
    assert len(server.requests) == 3


def test_an_archive_with_another_checksum_is_refused(copy: Copy, server: Server) -> None:
    server.content = b"not the archive"
    with pytest.raises(ValueError, match="tar.gz is not the official archive: .*does not match"):
        data.cifar10()
    assert len(server.requests) == 1 + _cifar10.RETRIES
    assert list(server.cache.iterdir()) == []


def test_offline_the_error_says_what_to_do(
    copy: Copy, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/"
    monkeypatch.setattr(_cifar10, "ADDRESS", address)
    with pytest.raises(OSError, match="could not be downloaded") as error:
        data.cifar10()
    for part in (str(server.archive), "COMPANION_CIFAR10", FOLDER, address):
        assert part in str(error.value)
    server.cache.mkdir(exist_ok=True)
    server.archive.write_bytes(b"half of it")
    with pytest.raises(OSError, match="the file there has another SHA-256"):
        data.cifar10()
    server.archive.write_bytes(pack(copy.folder, monkeypatch))  # put where the error says
    assert data.cifar10()[1].y.tolist() == copy.stacked("test_batch")[1].tolist()


def test_nothing_but_the_batches_leaves_the_archive(
    copy: Copy, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    extra = [
        tarfile.TarInfo(name)
        for name in (
            "../outside",
            str(outside),
            f"{FOLDER}/../../outside",
            f"../{FOLDER}/data_batch_1",
            f"{FOLDER}/readme.html",
        )
    ]
    for info in extra:
        info.size = 10
    link = tarfile.TarInfo(f"{FOLDER}/data_batch_1")
    link.type, link.linkname = tarfile.SYMTYPE, str(outside)
    server.content = pack(copy.folder, monkeypatch, *extra, link)
    assert data.cifar10_checksum() == data.cifar10_checksum(copy.folder)
    assert sorted(path.name for path in (server.cache / FOLDER).iterdir()) == sorted(ROWS)
    assert not any(path.is_symlink() for path in (server.cache / FOLDER).iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "images"]


def test_an_archive_without_a_batch_is_refused(
    copy: Copy, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy.folder / "data_batch_4").unlink()
    server.content = pack(copy.folder, monkeypatch)
    with pytest.raises(ValueError, match="cifar-10-python.tar.gz has no data_batch_4"):
        data.cifar10()
