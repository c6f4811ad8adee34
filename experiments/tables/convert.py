"""Read the tables that come with other packages, and keep them, or some of their rows, in one small file.

Debian's r-cran-mlbench 2.1-6 (GPL-2; most of its tables are those of the UCI repository) and earthlib 1.1.0 (MIT) are
not needed afterwards. The file keeps numbers and labels, nothing of the packages' code. The reader of R's files needs
an environment of its own:

    apt-get download r-cran-mlbench && dpkg-deb -x r-cran-mlbench_*.deb /tmp/mlbench
    python -m venv /tmp/reader && /tmp/reader/bin/pip install rdata==1.1.0 earthlib==1.1.0
    /tmp/reader/bin/python -m experiments.tables.convert /tmp/mlbench/usr/lib/R/site-library/mlbench/data
"""

import sys
from importlib.resources import files
from pathlib import Path

import numpy as np

from experiments import RESULTS

PATH = RESULTS / "12_tables.npz"
SEED = 1211
MOST = 5_000  # rows kept of a table
MOST_OF_A_KIND = 500  # spectra kept of a kind: one soil library has 4,168 of the 5,261 that were measured
BANDS = 180
MLBENCH = {  # name here: file, column of labels
    "glass": ("Glass", "Type"),
    "ionosphere": ("Ionosphere", "Class"),
    "letter": ("LetterRecognition", "lettr"),
    "pima": ("PimaIndiansDiabetes", "diabetes"),
    "satellite": ("Satellite", "classes"),
    "shuttle": ("Shuttle", "Class"),
    "sonar": ("Sonar", "Class"),
    "vehicle": ("Vehicle", "Class"),
    "vowel": ("Vowel", "Class"),
    "zoo": ("Zoo", "type"),
}


def convert(folder: Path, path: Path = PATH) -> None:
    """Write numbers (samples, features) and labels (samples,) of each table; `folder` has mlbench's .rda files."""
    rng = np.random.default_rng(SEED)
    tables = {name: read_mlbench(folder, *place) for name, place in MLBENCH.items()} | {"spectra": read_spectra(rng)}
    arrays = {}
    for name, (data, labels) in tables.items():
        rows = np.sort(rng.permutation(len(data))[:MOST])
        arrays[f"{name} data"], arrays[f"{name} labels"] = data[rows], labels[rows]
    np.savez_compressed(path, **arrays)


def read_mlbench(folder: Path, name: str, label: str) -> tuple[np.ndarray, np.ndarray]:
    """The columns of numbers or of true and false, float32; columns of categories (a speaker's number) are left out."""
    import rdata

    [frame] = rdata.read_rda(folder / f"{name}.rda").values()
    labels = np.unique(frame.pop(label).astype(str), return_inverse=True)[1]
    return frame.select_dtypes(["number", "bool", "boolean"]).to_numpy(dtype=np.float32), labels.astype(np.int8)


def read_spectra(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Measured spectra, float16, and whether bare, built, burned or dry plants; at most MOST_OF_A_KIND of each."""
    import pandas as pd

    folder = files("earthlib") / "data"
    frame = pd.read_csv(folder / "spectra.csv")
    data = np.frombuffer((folder / "spectra.sli").read_bytes(), dtype="<f4").reshape(len(frame), BANDS)
    rows = []
    for _, kind in frame[frame["SOURCE"] != "prosail"].groupby("LEVEL_2"):  # PROSAIL simulates
        rows.append(rng.permutation(kind.index)[:MOST_OF_A_KIND])
    order = np.sort(np.concatenate(rows))
    labels = np.unique(frame["LEVEL_2"][order], return_inverse=True)[1]
    return data[order].astype(np.float16), labels.astype(np.int8)


if __name__ == "__main__":
    convert(Path(sys.argv[1]))
