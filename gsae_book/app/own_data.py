"""From a table to a folder that a user takes home: labels, a report, the model, and the lines that repeat it.

`gsae cluster`, `gsae predict` and chapter 12 are made of these functions. They need the packages of the command, and
neither a project nor a notebook.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from gsae_book.runs.files import lock_beside, locked
from gsae_book.runs.parameters import ParameterError, shown
from gsae_book.runs.targets import CLUSTERING
from gsae_lib._files import replace_file

if TYPE_CHECKING:
    import pandas as pd

    from gsae_book.app.report import Request
    from gsae_book.data.tables import Table
    from gsae_lib import GroupSparseClustering

MODEL = "clustering.json"  # what a folder is without it is no clustering
WHOLE = ".gsae-whole"  # in a folder of results: all of the new ones, which are about to replace the older ones
FORMULA = re.compile(r"[=+\-@\t\r](?!\d*[.,]?\d+([eE][-+]?\d+)?$)")  # as a spreadsheet lets one start; -3.5 is none
BLOCK = 10_000  # samples whose distances are found at a time
METHODS = {"groups": "group norms", "kmeans": "k-means"}
REPEAT = """# Repeats what report.html beside it shows: {rows:,} rows of {name!r} in {n_clusters} clusters.

from gsae_lib import GroupSparseClustering
from gsae_book.data.tables import read_table

table = read_table(
    {path!r},
{reading})
chosen = GroupSparseClustering(
    {wanted!r},  # clusters
    method="auto",
    scaling={scaling!r},
    n_splits={n_splits},
    seconds={seconds!r},
    random_state={seed},
).fit(table.values)
labels = chosen.labels_  # of the rows table.rows of the file
print(f"{{len(labels)}} rows in {{chosen.n_clusters_}} clusters")
"""


def cluster_table(request: Request, tell: Callable[[str], None]) -> tuple[Table, GroupSparseClustering]:
    """The table and its clusters; ``tell`` is called with lines about what was read and what goes on.

    Raises: ValueError for a table or an argument that cannot be used; OSError for a file that cannot be read.
    """
    from gsae_book.data.tables import read_table
    from gsae_lib import GroupSparseClustering

    table = read_table(request.path, **request.reading)
    for line in str(table).splitlines():
        tell(line)

    def progress(what: str, used: float) -> None:
        left = max(0.0, request.seconds - used)
        tell(f"{used:5.1f} s: {what}" + (f"; at most {left:.0f} s more" if what != "done" else ""))

    chosen = GroupSparseClustering(
        request.n_clusters,
        method="auto",
        scaling=request.scaling,
        seconds=request.seconds,
        random_state=request.seed,
    )
    return table, chosen.fit(table.values, callback=progress)


def write_results(folder: Path, request: Request, table: Table, chosen: GroupSparseClustering) -> None:
    """Write labels, report, model and the lines that repeat them into ``folder``, as one.

    They are made in a hidden folder, which one rename makes the new ``folder``. One that exists keeps what else is in
    it: the rename makes the hidden folder whole, and from then on the new results are those that count, since what is
    killed while it moves them is ended by the next call, here or of `predict_table`. At no moment do files of older and
    of new results stand beside each other. One process at a time writes; another waits.

    Raises: OSError if that fails; then ``folder`` is as it was.
    """
    from gsae_book.app.report import report_page

    folder = Path(folder)
    request = replace(request, path=Path(os.path.abspath(request.path)))
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = lock_beside(folder)
    with locked(lock, waiting=f"Another command writes into {shown(str(folder))}: waiting for it."):
        _end_replacing(folder)
        for left in folder.glob(".gsae-*"):  # of a call that was killed before it had anything whole
            shutil.rmtree(left, ignore_errors=True)
        made = (folder if folder.is_dir() else folder.parent) / f".gsae-{lock.stem}"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        try:
            (made / "labels.csv").write_text(as_csv(label_rows(table, chosen)), encoding="utf8")
            repeat = repeat_lines(request, table, chosen)
            (made / "repeat.py").write_text(repeat, encoding="utf8")
            (made / "report.html").write_text(report_page(request, table, chosen, repeat), encoding="utf8")
            _write_model(made, request, table, chosen)
            if not folder.exists():
                os.rename(made, folder)
                return
            os.rename(made, folder / WHOLE)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        _end_replacing(folder)


def _end_replacing(folder: Path) -> None:
    """Move the results that are whole in a hidden folder to their place, also where a killed call had begun to."""
    whole = folder / WHOLE
    if (whole / MODEL).is_file():  # it moves last
        kept = json.loads((whole / MODEL).read_text(encoding="utf8"))["files"]
        for name in (MODEL, *CLUSTERING):
            if name not in kept or (whole / name).exists():
                (folder / name).unlink(missing_ok=True)
        for name in (*kept, MODEL):
            if (whole / name).exists():
                os.replace(whole / name, folder / name)
    shutil.rmtree(whole, ignore_errors=True)


def as_csv(frame: pd.DataFrame) -> str:
    """A table of labels as text in which a spreadsheet runs nothing.

    Names of rows with which a formula could start, as =1+1 or @SUM(A1), get an apostrophe, as a spreadsheet shows text;
    numbers such as -3 stay.
    """
    if "index" in frame:
        frame = frame.assign(index=[_harmless(name) for name in frame["index"]])
    return frame.to_csv(index=False)


def _harmless(name: str) -> str:
    return f"'{name}" if FORMULA.match(name) else name


def label_rows(table: Table, chosen: GroupSparseClustering) -> pd.DataFrame:
    """A line for each sample: row of the file, its name if it has one, cluster, confidence, distance to the next.

    Rows that were left out have no cluster; where rows have names they do not stand there at all. The last columns hold
    the clusters that k-means and group norms alone give.
    """
    import pandas as pd

    found: dict[str, Any] = {"row": table.rows}
    if table.index is not None:
        found["index"] = table.index
    found["cluster"] = chosen.labels_
    found["confidence"] = np.round(chosen.confidence_, 4)
    found["distance_to_next"] = np.round(chosen.margin_, 6)
    found["k_means"] = chosen.baseline_labels_
    if chosen.model_labels_ is not None:
        found["group_norms"] = chosen.model_labels_
    return _in_place(pd.DataFrame(found), table)


def _in_place(frame: pd.DataFrame, table: Table) -> pd.DataFrame:
    """The lines, and empty ones for rows of the file that were left out, unless rows have names."""
    import pandas as pd

    if table.index is not None or len(table.rows) == table.n_rows:
        return frame
    frame = frame.set_index("row")
    kept = frame.astype(dict.fromkeys(frame.select_dtypes("integer"), "Int64"))
    return kept.reindex(pd.RangeIndex(table.n_rows, name="row")).reset_index()


def repeat_lines(request: Request, table: Table, chosen: GroupSparseClustering) -> str:
    """A program that gives the same labels."""
    given = {name: value for name, value in request.reading.items() if value not in (None, (), [], "refuse")}
    return REPEAT.format(
        rows=len(table.values),
        name=request.path.name,
        n_clusters=chosen.n_clusters_,
        path=str(request.path),
        reading="".join(f"    {name}={value!r},\n" for name, value in given.items()),
        wanted=request.n_clusters,
        scaling=chosen.scaling_method_,
        n_splits=chosen.evidence_["n_splits"] if chosen.evidence_ else 1,
        seconds=request.seconds,
        seed=request.seed,
    )


def _write_model(folder: Path, request: Request, table: Table, chosen: GroupSparseClustering) -> None:
    """The model, the means of its clusters, and what `predict_table` has to know of the table."""
    from gsae_book.app.report import shown_rows
    from gsae_lib import __version__
    from gsae_lib.estimators.certainty import cluster_means

    rows = shown_rows(len(table.values))
    kinds, means = cluster_means(chosen.transform(np.asarray(table.values[rows])), chosen.labels_[rows])
    np.savez(folder / "arrays.npz", kinds=kinds, means=means)
    chosen.save(folder / "model")
    fill = np.median(table.values[rows], axis=0) if table.fill is None else table.fill  # for gaps of new rows
    reading = {name: list(value) if isinstance(value, tuple) else value for name, value in request.reading.items()}
    content = {
        "version": __version__,
        "table": str(request.path),
        "reading": reading,
        "columns": list(table.columns),
        "fill": dict(zip(table.columns, fill.tolist(), strict=True)),
        "method": METHODS[chosen.method_],
        "n_clusters": int(chosen.n_clusters_),
        "scaling": chosen.scaling_method_,
        "seed": request.seed,
    }
    content["files"] = {name: _sha256(folder / name) for name in CLUSTERING if (folder / name).is_file()}
    text = json.dumps(content | {"sha256": _signature(content)}, indent=1, allow_nan=False)
    replace_file(folder / MODEL, text + "\n")


def _signature(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_model(folder: Path) -> dict[str, Any]:
    """What clustering.json holds, once its checksum and those of the model's files are seen to be right.

    labels.csv, the report and the lines that repeat it may be edited: nothing is read from them.
    """
    with locked(lock_beside(folder), waiting=f"Another command writes into {shown(str(folder))}: waiting for it."):
        if (folder / WHOLE).is_dir():
            _end_replacing(folder)
    saved = json.loads((folder / MODEL).read_text(encoding="utf8"))
    told = saved.pop("sha256", None)
    if told is None:
        again = "gsae cluster TABLE -o FOLDER --force makes it anew"
        raise ValueError(f"it has no checksum, as those of version 0.3 and before; {again}")
    if told != _signature(saved):
        raise ValueError(f"{MODEL} was changed: its checksum is another")
    for name in {"arrays.npz", "model.json", "model.safetensors"} & saved["files"].keys():
        if _sha256(folder / name) != saved["files"][name]:
            raise ValueError(f"{name} was changed, or is of another clustering: its checksum is another")
    return saved


def predict_table(folder: Path, path: Path, missing: str | None = None, decimal: str | None = None) -> pd.DataFrame:
    """The clusters of the rows of a new table, by what ``folder`` holds: row, index, cluster, distance to the next.

    The table is read as the old one was: the same columns, by name, the decimal mark and gaps, unless ``decimal`` and
    ``missing`` say otherwise; medians of the old table fill gaps.

    Raises: ParameterError for a folder without a model; ValueError for a table that does not fit it; OSError.
    """
    import pandas as pd

    from gsae_book.data.tables import read_table
    from gsae_lib.estimators.certainty import margins

    try:
        saved = _read_model(folder)
        with np.load(folder / "arrays.npz", allow_pickle=False) as file:
            arrays = dict(file)
        reading = saved["reading"] | {"label": None, "drop": (), "columns": saved["columns"]}
        reading |= {k: v for k, v in {"missing": missing, "decimal": decimal}.items() if v}
        reading["fill"] = saved["fill"] if reading.get("missing") == "impute" else None
        kinds, means = arrays["kinds"], arrays["means"]
        label = _labeller(folder, saved, arrays)
    except FileNotFoundError as error:
        raise ParameterError(f"{folder} holds no clustering: there is no {Path(error.filename).name}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, EOFError, BadZipFile) as error:
        raise ParameterError(
            f"{folder} holds no clustering that can be read: {' '.join(str(error).split())[:300]}"
        ) from None
    table = read_table(path, **reading)
    labels, distances = [], []
    for start in range(0, len(table.values), BLOCK):
        found, samples = label(np.asarray(table.values[start : start + BLOCK]))
        labels.append(found)
        distances.append(margins(samples, found, kinds, means))
    names: dict[str, Any] = {"row": table.rows} | ({} if table.index is None else {"index": table.index})
    rest = {"cluster": np.concatenate(labels), "distance_to_next": np.round(np.concatenate(distances), 6)}
    return _in_place(pd.DataFrame(names | rest), table)


def _labeller(
    folder: Path, saved: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """What gives rows their clusters, and what was clustered, in which distances are measured."""
    from sklearn.metrics import pairwise_distances_argmin

    from gsae_lib import GroupSparseClustering
    from gsae_lib.estimators.scaling import Scaling

    if "mean" not in arrays:
        model = GroupSparseClustering.load(folder / "model")
        return lambda rows: (model.predict(rows), model.transform(rows))
    # As version 0.3 wrote it: a scaling, and either centres or a model of what is scaled.
    scaling = Scaling(arrays["mean"], arrays["spread"], saved["scaling"] == "unit norm")
    old = GroupSparseClustering.load(folder / "model") if saved["method"] == "group norms" else None
    centres = arrays["centres"] if old is None else None

    def label(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        samples = np.asarray(scaling(rows), dtype=np.float64)
        if old is None:
            return pairwise_distances_argmin(samples, centres), samples
        return old.predict(samples), old.transform(samples)

    return label


def command_line(text: str) -> str:
    """A message of the library with its arguments as the command's options: missing='impute' as --missing impute."""
    text = re.sub(r"\b(drop|columns)=\['([^']*)'\]", r"--\1 '\2'", text)
    text = re.sub(r"\bheader=(True|False)", lambda found: "--header" if found[1] == "True" else "--no-header", text)
    text = text.replace("missing='drop rows'", "--missing drop-rows").replace("missing='impute'", "--missing impute")
    return re.sub(r"\b(label|part|index|columns|drop|decimal)=(?=['\s]|$)", r"--\1 ", text)
