"""What takes tensors, called on a device that is not there, and on the CPU: `run_cases` says where the two differ.

Run as a program: torch must not have gone backward before it knows of the device.
"""

import dataclasses
import importlib
import inspect
import json
import pkgutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from pretended_device import DEVICE, Elsewhere, Pretending, synchronisations
from public_surface import public_objects

import gsae_lib
from gsae_lib import (
    activations,
    clustering,
    dictionary,
    generative,
    groups,
    metrics,
    subspaces,
)
from gsae_lib.coding import group_lasso
from gsae_lib.learning import alternating, initialization, pairwise
from gsae_lib.networks import autoencoder, layered, sparse_gradient, unfolding
from gsae_lib.penalty import GroupPenalty
from gsae_lib.sae import BatchTopKSAE, GroupJumpReLUSAE, GroupReLUSAE, GroupSAE, GroupTopKSAE
from gsae_lib.sae import scores as feature_scores
from gsae_lib.theory import certificate, flows, gradient, population, rates, windows
from gsae_lib.theory import layers as layer_theory
from gsae_lib.training import layerwise
from gsae_lib.training import loop as training

NAMES = [m.name for m in pkgutil.walk_packages(gsae_lib.__path__, "gsae_lib.") if not m.ispkg]
MODULES = [importlib.import_module(name) for name in NAMES]
D, Z = torch.float64, 2  # precision, and d
Put = Callable[[torch.Tensor], torch.Tensor]


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(3)


WEIGHT = generative.coherent_dictionary(10, 4, Z, 0.1, generator=rng(), dtype=D)
SAMPLE = generative.GroupSparseSource(WEIGHT, Z, 2, snr_db=20.0).sample(120, generator=rng())
DATA, CODES = SAMPLE.data, SAMPLE.codes
NEAR = dictionary.perturbed_dictionary(WEIGHT, 0.97, generator=rng())
FACTOR = torch.randn(10, 8, generator=rng(), dtype=D)
SMOOTH = {"n_iterations": 3, "dictionary": NEAR}


def fit(model: Any, put: Put, data: torch.Tensor = DATA, **settings: Any) -> Any:
    """Train for two epochs where `put` puts things: the curves and what the model then knows."""
    device = str(put(torch.zeros(1)).device)
    plan = training.TrainingSettings(**{"epochs": 2, "batch_size": 50, "progress": False} | settings, device=device)
    errors = training.DictionaryErrors(put(WEIGHT), Z) if model.weight.shape == WEIGHT.shape else lambda *_: None
    with tempfile.TemporaryDirectory() as folder:
        found = training.train(model, data, plan, generator=rng(), callbacks=[errors], checkpoint=Path(folder) / "run")
    return found.curves, [x.detach() for x in model.state_dict().values()]


def backward(f: Callable[..., Any], *tensors: torch.Tensor) -> Any:
    """Values and gradients."""
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    found = f(*leaves)
    first = found[0] if isinstance(found, tuple) else found
    first.sin().sum().backward()
    return found, [x.grad for x in leaves]


def featured(put: Put, kind: type[GroupSAE], **settings: Any) -> Any:
    model = kind(10, 4, Z, dictionary=put(NEAR), dead_after=20, **settings)
    model.prepare(put(DATA))
    if model.n_active is not None:
        model.calibrate(put(DATA))
    model.constrain()
    told = len(model.explain_inactivity(put(DATA)))
    return fit(model, put), model(put(DATA)), feature_scores.score_sae(model, put(DATA)), told


def stack(put: Put, passed: Any) -> layered.LayeredAutoencoder:
    width = 4 if passed == "norms" else 8
    upper = generative.gaussian_dictionary(width, 2, 2, generator=rng(), dtype=D)
    parts = [autoencoder.GroupSparseAutoencoder(10, 4, Z, 0.5, **SMOOTH)]
    parts.append(autoencoder.GroupSparseAutoencoder(width, 2, 2, 0.1, dictionary=upper))
    return layered.LayeredAutoencoder(parts, passed=passed, n_iterations=3).to(put(DATA).device)


def moments(put: Put) -> Any:
    found = feature_scores.CodeMoments(4, Z)
    found.add(put(CODES))
    return found.bits(put(WEIGHT), 0.1)


def network(put: Put, **settings: Any) -> Any:
    penalty = GroupPenalty(**({"penalty": 0.5, "groups": Z} | settings.pop("penalty", {})))
    model = autoencoder.GroupSparseAutoencoder(10, 4, penalty=penalty, **(SMOOTH | settings))
    return model.to(put(DATA).device)


SIZES = torch.full((4,), 0.5, dtype=D)
LABELS = CODES.reshape(120, 4, Z).norm(dim=2).argmax(dim=1)
POPULATION = population.Population(10, 4, Z, 1, (4.0, 5.0), 0.0, True)
STEPS = network(lambda x: x).unfolding()
PAIRS = torch.tensor([0, 0, 5]), torch.tensor([1, 3, 2])
ONE = generative.GroupSparseSource(WEIGHT, Z, 1, snr_db=20.0).sample(120, generator=rng())


def on(sample: generative.GroupSparseSample, put: Put) -> generative.GroupSparseSample:
    return generative.GroupSparseSample(*(put(getattr(sample, x.name)) for x in dataclasses.fields(sample)))


def sparse_pairs(put: Put) -> Any:
    chosen = tuple(put(x) for x in PAIRS)
    few = sparse_gradient.ActivePairs(chosen, torch.Size((120, 4, Z)))
    responses = (put(DATA) @ put(NEAR)).unflatten(1, (-1, Z))
    values = put(torch.ones(3, Z, dtype=D))
    gathered = sparse_gradient.selected_responses(put(DATA), put(NEAR), put(NEAR[0]), responses, few)
    decoded = backward(lambda v, w: sparse_gradient.decode_pairs(v, w, few), values, put(NEAR))
    return gathered, decoded, few.rows(values) @ put(NEAR.T), few.columns(values) @ put(DATA)


CASES: dict[str, Callable[[Put], Any]] = {
    "activations": lambda p: [
        backward(lambda x, t: activations.group_relu(x, t, Z, elementwise_threshold=0.1), p(CODES), p(SIZES)),
        backward(lambda x, t: activations.group_jump_relu(x, t, Z, bandwidth=0.5), p(CODES), p(SIZES)),
        activations.group_relu(p(CODES), SIZES, Z), activations.soft_threshold(p(CODES), 0.1),
        activations.biased_relu(p(CODES), 0.1), activations.group_hard_threshold(p(CODES), p(SIZES), Z),
        activations.group_top_k(p(CODES), 1, Z), activations.batch_group_top_k(p(CODES), 1.5, Z),
        activations.GroupReLU(SIZES, Z).to(p(CODES).device)(p(CODES)),
    ],
    "groups": lambda p: [
        f(p(CODES), Z) for f in (
            groups.to_groups, groups.group_norms, groups.normalized_group_norms, groups.active_groups,
            metrics.dead_groups, metrics.mean_active_groups, clustering.strongest_group)
    ],
    "dictionary": lambda p: [
        dictionary.normalize_columns(p(FACTOR)), dictionary.orthonormalize_groups(p(FACTOR), Z),
        dictionary.coherence(p(FACTOR)), dictionary.block_coherence(p(FACTOR), Z),
        dictionary.perturbed_dictionary(p(FACTOR), 0.9, generator=rng()),
    ],
    "generative": lambda p: [
        [generative.GroupSparseSource(p(WEIGHT), Z, 2, codes=c, snr_db=20.0, snr_of=s).sample(9, generator=rng())
         for c, s in (("sphere", "source"), ("gaussian", "sample"))],
        generative.GroupSparseSource.sparse(p(WEIGHT), 1, nonnegative=True).sample(9, generator=rng()),
        generative.GroupSparseSource.union_of_subspaces(p(WEIGHT), Z).sample(9, generator=rng()).labels,
        generative.GroupSparseSource.gaussian_mixture(p(WEIGHT), snr_db=9.0).sample(9, generator=rng()),
        next(generative.GroupSparseSource(p(WEIGHT), Z).stream(9, generator=rng())),
        layered.LayeredSource((p(WEIGHT), p(torch.eye(4, dtype=D))), (Z, 2), 1, 1).sample(9, generator=rng()),
    ],
    "networks": lambda p: [
        [backward(network(p, **s), p(DATA)) for s in ({}, {"tied": False, "penalty": {"nonnegative": True}},
         {"checkpoint": True, "penalty": {"l1": 0.1, "weights": SIZES, "penalty": 1.0}}, {"n_iterations": 1})],
        autoencoder.set_target_sparsity(network(p), p(DATA), 2.0), network(p).set_penalty(0.3),
        autoencoder.summarize_codes(network(p), p(DATA), p(LABELS)),
        [backward(stack(p, passed), p(DATA)) for passed in ("norms", "codes")],
        unfolding.unfold(p(DATA @ NEAR), p(NEAR.T @ NEAR), STEPS), unfolding.tied_gradient(p(DATA), p(NEAR), STEPS),
    ],
    "features": lambda p: [featured(p, kind, **s) for kind, s in (
        (GroupReLUSAE, {"n_active": 2}), (GroupTopKSAE, {"n_active": 1, "bias": False}),
        (BatchTopKSAE, {"n_active": 0.5, "tied": True, "nonnegative": True}),
        (GroupJumpReLUSAE, {"n_active": 2, "decoder": "orthonormal"}),
        (GroupJumpReLUSAE, {"threshold": 0.5, "decoder": "free"}))],
    "feature scores": lambda p: [
        feature_scores.description_length(p(CODES), p(WEIGHT), Z, 0.1), moments(p)],
    "training": lambda p: [
        fit(network(p, n_iterations=1, step_size=1.0, penalty={"penalty": 6.0}), p),
        fit(network(p), p, normalize="groups"),
        fit(network(p, tied=False), p, p(DATA), normalize="columns"), fit(stack(p, "norms"), p, batch_size=None),
        layerwise.train_layers(stack(p, "norms"), DATA, training.TrainingSettings(
            epochs=1, progress=False, device=str(p(DATA).device)), generator=rng())[0].curves,
        [len(one.explain_inactivity(p(DATA))) for one in (network(p), stack(p, "norms"))],
    ],
    "structured": lambda p: [
        [
            sparse_gradient.shallow_gradient(p(DATA), p(NEAR), GroupPenalty(2.0, Z, nonnegative=n))
            for n in (False, True)
        ],
        sparse_pairs(p),
    ],
    "coding": lambda p: [
        group_lasso.group_sparse_code(p(DATA), p(NEAR), 0.5, Z, init=p(CODES), tol=1e-13),
        group_lasso.duality_gap(p(DATA), p(NEAR), p(CODES), p(torch.full((120,), 0.5, dtype=D)), Z),
        group_lasso.excess_objective(p(DATA), p(NEAR), p(CODES), 0.5, Z, tol=1e-13),
        group_lasso.penalty_path(p(DATA[:9]), p(NEAR), Z, n_penalties=2, tol=1e-11),
        alternating.alternating_minimization(
            p(DATA), p(NEAR), 0.5, Z, max_iter=2, batch_size=60, generator=rng(), tol=1e-13),
    ],
    "metrics": lambda p: [
        metrics.dictionary_error(p(NEAR), p(WEIGHT)),
        metrics.support_recovery(p(CODES), p(CODES.relu()), Z), metrics.explained_variance(p(DATA), p(0.9 * DATA)),
        metrics.reconstruct_from_strongest(p(DATA), p(NEAR), p(CODES), 1, Z),
        metrics.clustering_scores(p(LABELS), p(LABELS)), metrics.distance_contrast(p(DATA), p(LABELS)),
        [f(p(NEAR), p(WEIGHT), Z) for f in (
            metrics.rotated_dictionary_error, metrics.principal_angles, metrics.match_groups,
            subspaces.subspace_overlaps, subspaces.match_subspaces)],
        subspaces.subspace_capture(p(DATA), p(WEIGHT), Z), subspaces.largest_capture(p(DATA), 2),
        subspaces.group_captures([p(WEIGHT[:, :3])], p(WEIGHT), Z),
    ],
    "clustering": lambda p: [
        clustering.positive_part(p(CODES)), clustering.kmeans_clusters(p(DATA), p(DATA[:9]), 3, random_state=0),
        clustering.spectral_clusters(p(DATA), 3, 9, random_state=0),
        clustering.ensemble_clusters(p(ONE.data), 4, Z, random_state=0, n_runs=1),
        clustering.coactivation_groups(p(groups.group_norms(CODES, Z)), 2, random_state=0),
    ],
    "starts": lambda p: [
        initialization.initial_dictionary(p(ONE.data), 2, Z, m, generator=rng()) for m in (
            "random", "data", "k-means", "neighbors", "k-subspaces", "pairs")],
    "pairs": lambda p: [
        found := pairwise.find_groups(p(DATA), 2, Z, max_tries=64, generator=rng()),
        pairwise.estimate_group_size(p(DATA), generator=rng()),
        pairwise.repeat_on_halves(p(DATA), found, generator=rng()), pairwise.code_anisotropy(p(CODES[:, :Z])),
    ],
    "certificate": lambda p: [
        certificate.certify(p(DATA), p(NEAR), 1.0, Z, second_dictionary=p(WEIGHT)),
        certificate.certify(on(ONE, p), p(NEAR), 1.0, Z, true_dictionary=p(WEIGHT)),
    ],
    "theory": lambda p: [
        source := generative.GroupSparseSource(p(WEIGHT), Z, 1), population.Population.of(source),
        step := gradient.sample_gradient(p(DATA), p(NEAR), 1.0, Z),
        gradient.expected_gradient(source, p(NEAR), 1.0, n_samples=40, n_batches=2, generator=rng()),
        gradient.horizontal(p(NEAR), step, Z), gradient.riemannian_step(p(NEAR), step, 0.1, Z),
        gradient.gradient_alignment(p(NEAR), p(WEIGHT), step, Z),
        gradient.printed_correlation(p(NEAR[:, :Z]), p(WEIGHT[:, :Z]), step[:, :Z], 0.5, 0.2),
        bases := flows.plane_bases(p(DATA[:4, :3])), flows.normal_flow(p(DATA[:, :3]), p(DATA[:4, :3]), 1.0),
        flows.active_share(p(DATA[:, :3]), bases, 1.0),
        layer_theory.false_alarm_tangent(p(torch.eye(2, dtype=D)), p(torch.zeros(2, dtype=D)), 3, 0.1, (0.5, 0.5)),
        designed := population.designed_sample(p(WEIGHT), Z, 1, 4.0), population.antithetic(designed, p(WEIGHT)),
        rates.loss_hessian(p(DATA[:20, :4]), p(NEAR[:4, :4]), 1.0, Z),
        windows.support_recovery_windows(p(NEAR), p(WEIGHT), POPULATION),
        windows.basin_window(p(NEAR), p(WEIGHT), POPULATION),
        windows.measured_success(on(ONE, p), p(NEAR), [1.0, 2.0], Z),
    ],
}  # fmt: skip


def parts(found: Any) -> Iterator[Any]:
    """Tensors and numbers of a result, in order."""
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        found = [getattr(found, x.name) for x in dataclasses.fields(found) if x.name not in ("seconds", "n_iter")]
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list | tuple):
        for x in found:
            yield from parts(x)
    elif isinstance(found, torch.Tensor | np.ndarray | float | int):
        yield found


def compare(expected: Any, found: Any) -> None:
    """Equal within what another order of sums, or another solver, makes of it."""
    ours, theirs = list(parts(expected)), list(parts(found))
    assert len(ours) == len(theirs) > 0
    for x, y in zip(ours, theirs, strict=True):
        x, y = (np.asarray(v.detach().cpu() if isinstance(v, torch.Tensor) else v) for v in (x, y))
        np.testing.assert_allclose(y, x, rtol=1e-5, atol=1e-6)


class Watch:
    """Public functions, wherever they are called from: which were given what is elsewhere, and what two devices do."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.mixed: dict[str, str] = {}
        self.tried: set[str] = set()
        self.depth = 0
        public = {n: f for n, f in public_objects(n for n in NAMES if "._" not in n).items() if inspect.isfunction(f)}
        self.names = [n for n, f in public.items() if takes_tensors(f)]
        watched = {id(public[name]): self.watch(name, public[name]) for name in self.names}
        for owner in [*MODULES, *(c for m in MODULES for c in vars(m).values() if inspect.isclass(c))]:
            for key, item in list(vars(owner).items()):
                if id(getattr(item, "__func__", item)) in watched and not isinstance(item, ModuleType):
                    new = watched[id(getattr(item, "__func__", item))]
                    setattr(owner, key, classmethod(new) if isinstance(item, classmethod) else new)

    def watch(self, name: str, function: Any) -> Any:
        """The function, noted."""

        def noted(*args: Any, **kwargs: Any) -> Any:
            there = [k for k, x in enumerate(args) if isinstance(x, Elsewhere)]
            if any(isinstance(x, Elsewhere) for x in tensors((args, kwargs))):
                if name not in self.tried and self.depth == 0 and len(there) > 1:
                    self.tried.add(name)
                    self.depth += 1
                    for k in there:
                        self.try_mixed(name, function, [x.cpu() if j == k else x for j, x in enumerate(args)], kwargs)
                    self.depth -= 1
                self.seen.add(name)
            self.depth += 1
            try:
                return function(*args, **kwargs)
            finally:
                self.depth -= 1

        return noted

    def try_mixed(self, name: str, function: Any, args: list[Any], kwargs: Any) -> None:
        """A call with tensors of two devices works, or ends with an error that names both."""
        try:
            function(*args, **kwargs)
        except ValueError as error:
            if not ("cpu" in str(error) and DEVICE.type in str(error)):
                self.mixed[name] = repr(error)
        except Exception as error:
            self.mixed[name] = repr(error)


def takes_tensors(function: Any) -> bool:
    """Whether a parameter may be a tensor, or holds some."""
    annotations = [str(p.annotation) for p in inspect.signature(function).parameters.values()]
    return any(word in text for text in annotations for word in ("Tensor", "GroupSparseSample", "GroupSparseSource"))


def tensors(found: Any) -> Iterator[Any]:
    """The tensors among arguments."""
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        found = vars(found)
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, torch.nn.Module):
        found = list(found.parameters())
    if isinstance(found, list | tuple):
        for x in found:
            yield from tensors(x)
    elif isinstance(found, torch.Tensor):
        yield found


def run_cases() -> dict[str, Any]:
    """What differs in each case, what was not called, what two devices do, and how often the host waited."""
    warnings.simplefilter("ignore")
    expected = {name: case(lambda x: x) for name, case in CASES.items()}
    watch, failed, waits = Watch(), {}, {}
    with Pretending():
        for name, case in CASES.items():
            try:
                found = case(lambda x: x.to(DEVICE))
                compare(expected[name], found)
            except Exception as error:
                failed[name] = repr(error)[:300] + "".join(traceback.format_tb(error.__traceback__)[-4:])
        for n_samples in (200, 800):
            data = generative.GroupSparseSource(WEIGHT, Z, 1, snr_db=20.0).sample(n_samples, generator=rng()).data
            synchronisations.clear()
            pairwise.find_groups(data.to(DEVICE), 4, Z, generator=rng())
            waits[n_samples] = synchronisations.total()
    missing = sorted(set(watch.names) - watch.seen)
    return {"failed": failed, "missing": missing, "mixed": watch.mixed, "waits": waits}


if __name__ == "__main__":
    json.dump(run_cases(), sys.stdout)
