"""Rival solvers of the group lasso, in an environment of their own: `python rivals.py SOLVER PROBLEM.npz TOL OUT.npz`.

PROBLEM holds data (samples, features), dictionary (features, atoms), penalty and group_size. OUT gets codes (samples,
atoms) and the seconds of a second run: a first on 20 samples has compiled and cached what there is to. All in float64;
the caller sets the number of threads.
"""

import sys
import time
import warnings
from collections.abc import Callable

import numpy as np


def spams(data: np.ndarray, dictionary: np.ndarray, penalty: float, size: int, tol: float) -> np.ndarray:
    """SPAMS, FISTA on all samples at once, with its Gram matrix computed beforehand."""
    import spams

    samples, atoms = np.asfortranarray(data.T), np.asfortranarray(dictionary)
    groups = np.repeat(np.arange(1, dictionary.shape[1] // size + 1, dtype=np.int32), size)
    start = np.zeros((dictionary.shape[1], len(data)), order="F")
    settings = {"loss": "square", "regul": "group-lasso-l2", "groups": groups, "compute_gram": True, "numThreads": 1}
    return spams.fistaFlat(samples, atoms, start, lambda1=penalty, tol=tol, max_it=20_000, it0=5, **settings).T


def adelie(data: np.ndarray, dictionary: np.ndarray, penalty: float, size: int, tol: float) -> np.ndarray:
    """adelie, coordinate descent in Gram form, one sample at a time."""
    import adelie

    gram, correlations = np.asfortranarray(dictionary.T @ dictionary), data @ dictionary
    groups = np.arange(0, dictionary.shape[1], size)
    settings = {"groups": groups, "penalty": np.ones(len(groups)), "lmda_path": np.array([penalty])}
    settings |= {"early_exit": False, "progress_bar": False, "rdev_tol": 0.0, "max_iters": 10**7}
    states = (adelie.gaussian_cov(gram, v, tol=tol, **settings) for v in correlations)
    return np.stack([state.betas.toarray()[-1] if state.betas.shape[0] else np.zeros(len(gram)) for state in states])


def skglm(data: np.ndarray, dictionary: np.ndarray, penalty: float, size: int, tol: float) -> np.ndarray:
    """skglm, working sets and Anderson acceleration, one sample at a time."""
    from skglm.datafits import QuadraticGroup
    from skglm.penalties import WeightedGroupL2
    from skglm.solvers import GroupBCD
    from skglm.utils.data import grp_converter
    from skglm.utils.jit_compilation import compiled_clone

    n, m = dictionary.shape
    indices, pointers = grp_converter(size, m)
    atoms = np.asfortranarray(dictionary)
    regulariser = compiled_clone(WeightedGroupL2(penalty / n, np.ones(m // size), pointers, indices))
    datafit = compiled_clone(QuadraticGroup(pointers, indices))
    solver = GroupBCD(max_iter=1000, max_epochs=10_000, tol=tol)
    return np.stack([solver.solve(atoms, y, datafit, regulariser)[0][:m] for y in data])


def celer(data: np.ndarray, dictionary: np.ndarray, penalty: float, size: int, tol: float) -> np.ndarray:
    """celer, working sets and dual extrapolation, one sample at a time."""
    from celer import GroupLasso

    atoms = np.asfortranarray(dictionary)
    model = GroupLasso(size, alpha=penalty / len(dictionary), tol=tol, fit_intercept=False, max_iter=1000)
    return np.stack([model.fit(atoms, y).coef_ for y in data])


SOLVERS: dict[str, Callable] = {"SPAMS": spams, "adelie": adelie, "skglm": skglm, "celer": celer}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    name, problem, tol, out = sys.argv[1:]
    given = np.load(problem)
    args = (given["data"], given["dictionary"], float(given["penalty"]), int(given["group_size"]), float(tol))
    SOLVERS[name](args[0][:20], *args[1:])
    start = time.perf_counter()
    codes = SOLVERS[name](*args)
    np.savez(out, codes=codes, seconds=time.perf_counter() - start)
