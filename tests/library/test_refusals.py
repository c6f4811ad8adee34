"""What cannot be is refused where it is given, in one line that names it: a row for each argument of each function."""

import itertools
import math
import re

import numpy as np
import pytest
import torch

from gsae_lib import (
    activations,
    clustering,
    coding,
    dictionary,
    generative,
    learning,
    metrics,
    networks,
    sae,
    subspaces,
)
from gsae_lib.estimators import GroupSparseClustering, GroupSparseCoder, GroupSparseDictionaryLearning
from gsae_lib.estimators.scaling import fit_scaling
from gsae_lib.groups import active_groups, group_norms, normalized_group_norms, to_groups
from gsae_lib.penalty import GroupPenalty
from gsae_lib.theory import Population
from gsae_lib.training import Checkpoint, DictionaryErrors, TrainingSettings, train, train_layers

ZEROS, ONES, EYE = torch.zeros(2, 6), torch.ones(4, 6), torch.eye(4)
WIDE, TABLE = torch.ones(4, 8), torch.randn(40, 12, generator=torch.Generator().manual_seed(0)).numpy()
SAMPLES = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
NAN = float("nan")


def rng():
    return torch.Generator().manual_seed(0)


def network(**changes):
    good = {"n_features": 6, "n_groups": 4, "groups": 2, "penalty": 0.1, "dictionary": torch.ones(6, 8)}
    return networks.GroupSparseAutoencoder(**good | changes)


LAYER = networks.GroupSparseAutoencoder(6, 2, 2, 0.1, generator=rng())
STACK = networks.LayeredAutoencoder([LAYER], passed="codes")


def solve(function=coding.group_sparse_code, **changes):
    return function(**{"data": torch.ones(5, 6), "dictionary": torch.ones(6, 8), "penalty": 0.1, "groups": 2} | changes)


def gradient(**changes):
    good = {"dictionary": torch.ones(6, 8), "data": torch.ones(5, 6), "penalty": 1.0, "group_size": 2}
    return networks.shallow_gradient(**good | changes)


def source(**changes):
    return generative.GroupSparseSource(**{"dictionary": torch.ones(4, 18), "group_size": 3} | changes)


def layered(*arguments, **changes):
    return networks.LayeredSource(*arguments, **changes)


def penalty(**changes):
    return GroupPenalty(**{"penalty": 0.1, "groups": 2} | changes)


def autoencoder(kind=sae.BatchTopKSAE, **changes):
    return kind(7, 6, 2, **{"dictionary": torch.eye(7, 12)} | changes)


def features(**changes):
    good = {"frequencies": torch.tensor([0.5, 0.2, 0.1]), "parents": torch.tensor([-1, 0, -1])}
    return sae.SyntheticFeatures(**{"dictionary": EYE, "group_sizes": (1, 2, 1)} | good | changes)


def planned(**changes):
    return sae.synthetic_features(8, 60, generator=rng(), **{"n_active": 2.0} | changes)


def training(data, **settings):
    model = networks.GroupSparseAutoencoder(10, 5, 2, 1.0, dictionary=torch.eye(10))
    return train(model, data, TrainingSettings(epochs=1, progress=False), generator=rng(), **settings)


def choice(X=TABLE, **changes):
    return GroupSparseClustering(**{"method": "auto"} | changes).fit(X)


def searched(data=SAMPLES, **changes):
    return learning.find_groups(data, generator=rng(), **changes)


def estimated(*arguments):
    return learning.estimate_group_size(*arguments, generator=rng())


def alternating(**changes):
    return learning.alternating_minimization(SAMPLES, torch.eye(8), 0.3, 2, **changes)


def started(method, n_groups=2):
    return learning.initial_dictionary(WIDE, n_groups, 2, method, generator=rng())


def k_subspaces(data=WIDE, n_groups=2, group_size=2, **changes):
    return learning.k_subspaces(data, n_groups, group_size, generator=rng(), **changes)


def strongest(data=ONES, atoms=ONES.T, codes=ONES[:, :4], n_active=1, group_size=2):
    return metrics.reconstruct_from_strongest(data, atoms, codes, n_active, group_size)


def learner(*arguments, **settings):
    return GroupSparseDictionaryLearning(*arguments, **settings).fit(TABLE)


def clusterer(n_clusters=4, **settings):
    return GroupSparseClustering(n_clusters, **settings).fit(TABLE)


def coder(*arguments, **settings):
    return GroupSparseCoder(*arguments, **settings).fit(TABLE)


def each(call, **bad):
    """A row for each value of each argument: it is named, quoted, and told what is expected."""
    for name, values in bad.items():
        for value in values:
            message = f"^{name}={re.escape(repr(value))}.*(expected|divide)"
            yield lambda name=name, value=value: call(**{name: value}), message


BAD_THRESHOLDS = {
    "-1.0": -1.0, "nan": NAN, "inf": math.inf, r"3 values.*\(2,\)": torch.ones(2), r"\(1, 3\)": torch.ones(1, 3),
    r"-0\.1": torch.tensor([0.1, -0.1, 0.0]),
}  # fmt: skip
REFUSED = {
    "activations": [
        *[(lambda f=f, t=t: f(ZEROS, t, 2), f"threshold.*{quoted}")
          for (quoted, t), f in itertools.product(BAD_THRESHOLDS.items(),
                                                  (activations.group_relu, activations.group_hard_threshold))],
        (lambda: activations.group_relu(ZEROS.int(), 0.1, 2), r"x: .*floating.*int32"),
        (lambda: activations.group_top_k(ZEROS.int(), 1, 2), r"x: .*floating.*int32"),
        (lambda: activations.group_relu(ZEROS, 0.1, 4), "group_size=4"),
        *each(lambda **bad: activations.group_relu(ZEROS, 0.1, 2, **bad), elementwise_threshold=(-0.5, NAN)),
        *each(lambda k: activations.group_top_k(ZEROS, k, 2), k=(0, 4, 1.0)),
        *each(lambda k: activations.batch_group_top_k(ZEROS, k, 2), k=(0.0, 3.5)),
        (lambda: activations.batch_group_top_k(ZEROS[0], 1.0, 2), "^x: expected two axes"),
        (lambda: activations.batch_group_top_k(ZEROS[None], 1.0, 2), "^x: expected two axes"),
        (lambda: activations.group_jump_relu(ZEROS, 1.0, 2, bandwidth=0.0), "bandwidth=0.0"),
        (lambda: activations.group_jump_relu(ZEROS, -1.0, 2, bandwidth=1.0), "threshold=-1.0"),
        (lambda: activations.GroupReLU(0.1, 0), "group_size=0"),
        (lambda: activations.GroupReLU(0.1, 2, elementwise_threshold=-1.0), "elementwise_threshold=-1.0"),
        (lambda: activations.GroupReLU(-0.1, 2)(ZEROS), "threshold"),
        (lambda: activations.GroupReLU(torch.ones(2, 2), 2), "^threshold: expected a number, or one for each group"),
    ],
    "groups": [
        *[(lambda f=f, d=d: f(ZEROS, d), f"group_size={d!r}") for f, d in itertools.product(
            (to_groups, group_norms, active_groups, normalized_group_norms), (0, -1, 4, 7, True, 2.0, None))],
        (lambda: to_groups(torch.tensor(1.0), 1), r"group_size=1.*\(\)"),
    ],
    "penalties": [
        (lambda: penalty(groups=[]), r"groups=\[\]: expected at least one group"),
        (lambda: penalty(groups=[2, 0]), r"groups\[1\]=0: expected an integer >= 1"),
        (lambda: penalty(groups=[[0, 1], []]), r"groups\[1\]=\[\]: expected a list of at least one atom"),
        (lambda: penalty(groups=[[0, 1], 2]), r"groups\[1\]=2: expected a list"),
        (lambda: penalty(groups=[[0, 0]]), r"groups\[0\]=\[0, 0\]: an atom is there twice"),
        (lambda: penalty(groups=[[0, 2]]), "groups: the atom 1 is in none of them"),
        (lambda: penalty(groups=[[0, -1]]), r"groups\[0\]=-1: expected an integer >= 0"),
        (lambda: penalty(groups="ab"), "groups"),
        (lambda: penalty(groups=1.5), r"group_size=1\.5"),
        *each(penalty, penalty=(-1.0,), l1=(-0.1,), nonnegative=(1,)),
        (lambda: penalty(penalty=torch.ones(2, 2)), "penalty: expected a number, or one for each sample"),
        (lambda: penalty(groups=[1, 2], weights=[1.0]), "weights: expected 2 values"),
        (lambda: penalty(weights=[1.0, -1.0]), r"weights=\[1\.0, -1\.0\]"),
    ],
    "networks": [
        *each(network, n_features=(0,), n_groups=(2.0,), n_iterations=(0,), step_size=(0.0, "safe"),
              gradient=("exact",), accelerated=("no",), checkpoint=("no",), tied=("no",),
              penalty=(-0.1, NAN, "x", None, True)),
        (lambda: network(groups=True), "group_size=True"),
        (lambda: network(groups=[2, 2, 4]), "n_groups=4: expected 3"),
        (lambda: network(groups=[[0, 1], [1, 2], [3, 4], [5, 6, 7]]), "groups: an atom is in several"),
        (lambda: network(penalty=10**400), "^penalty=inf"),
        (lambda: network(penalty=torch.ones(4)), r"penalty: expected a number.*weight for each group"),
        (lambda: network(penalty=penalty(weights=[1.0] * 3), groups=None), "weights: expected 4 values"),
        (lambda: network(dictionary=torch.ones(8, 6)), r"dictionary: .*\(6, 8\).*\(8, 6\)"),
        (lambda: network(dictionary=torch.full((6, 8), NAN)), "dictionary: .*non-finite"),
        (lambda: network(dictionary=torch.ones(6, 8).int()), "dictionary: .*int32"),
        (lambda: network(dictionary=None), "generator=None"),
        (lambda: network(dictionary=None, groups=7, generator=rng()), "group_size=7: .*from 1 to 6"),
        (lambda: network().encode(torch.ones(3, 8)), r"data: .*\(samples, 6\).*\(3, 8\)"),
        (lambda: network().encode(torch.ones(6)), r"data: .*\(6,\)"),
        (lambda: network().encode(torch.ones(2, 3, 6)), r"data: .*\(2, 3, 6\)"),
        (lambda: network().encode(torch.ones(3, 6).double()), "data: .*float32.*float64"),
        (lambda: network().encode(np.ones((3, 6))), r"data: .*\(3, 6\)"),
        (lambda: network().encode(ONES.to("meta")), "data: expected device cpu as the weight, got meta"),
        (lambda: network().set_penalty(-1.0), r"penalty=-1\.0"),
    ],
    "layers": [
        (lambda: layered((), ()), r"group_sizes=\(\)"),
        (lambda: layered((EYE,), (2, 2)), r"group_sizes=\(2, 2\)"),
        (lambda: layered((EYE, EYE), (2, 2)), r"dictionaries\[1\]: expected 2 rows"),
        (lambda: layered((EYE, -torch.eye(2)), (2, 2)), r"dictionaries\[1\]: expected no negative"),
        (lambda: layered((EYE, torch.eye(2)), (2, 1)), "n_children=2"),
        (lambda: layered((EYE,), (3,)), "group_size=3"),
        (lambda: layered((EYE,), (2,), 3), "n_active=3"),
        (lambda: layered((EYE,), (2,), passed="sums"), "passed='sums'"),
        (lambda: layered((EYE,), (2,), norm_range=(5.0, 4.0)), r"norm_range\[1\]=4.0"),
        (lambda: layered((EYE,), (2,), snr_db=1000.0), "snr_db=1000"),
        (lambda: networks.sibling_dictionary(0, 2), "n_groups=0"),
        (lambda: networks.sibling_dictionary(2, 2, 1.5), "overlap=1.5"),
        (lambda: networks.group_sparse_atoms(3, 2, 4, 5, generator=rng()), "n_active=5"),
        (lambda: networks.LayeredAutoencoder([LAYER] * 2), r"layers\[1\]: expected n_features=2, got 6"),
        (lambda: networks.LayeredAutoencoder([LAYER] * 2, passed="codes"), r"layers\[1\]: expected n_features=4"),
        (lambda: networks.LayeredAutoencoder([]), "layers: expected at least one"),
        (lambda: networks.LayeredAutoencoder([LAYER], passed="sums"), "passed='sums'"),
        (lambda: networks.LayeredAutoencoder([LAYER]).pass_up(torch.zeros(1, 4), 1), "index=1"),
        (lambda: STACK.encode(torch.zeros(2, 5)), r"data: expected \(samples, 6\)"),
    ],
    "the gradient": [
        *each(gradient, chunk=(0,), group_size=(3,)),
        (lambda: gradient(penalty=0.0), "penalty=0"),
        (lambda: gradient(data=torch.zeros(5, 4)), "data: expected"),
        (lambda: gradient(data=torch.zeros(5, 6).double()), "data: expected"),
        (lambda: gradient(data=ONES.double(), dictionary=torch.ones(6, 8).double(), screen=True),
         "screen=True: expected float32 data on the CPU"),
    ],
    "coding": [
        *[(lambda f=f, c=c: solve(f, **{"codes": torch.ones(5, 8)} | c), message)
          for f in (coding.group_lasso_objective, coding.duality_gap)
          for message, c in (
              ("penalty=-1.0", {"penalty": -1.0}), ("penalty=nan", {"penalty": NAN}), ("group_size=3", {"groups": 3}),
              ("groups: 7 atoms expected", {"groups": [3, 4]}), ("groups=None", {"groups": None}),
              (r"\(4, 6\).*\(6, 8\).*\(5, 8\)", {"data": ONES}),
              (r"\(5, 6\).*\(6, 8\).*\(5, 7\)", {"codes": torch.ones(5, 7)}),
              ("dictionary: .*non-finite", {"dictionary": torch.ones(6, 8) / 0}))],
        (lambda: solve(penalty=0.0), "penalty=0: expected values > 0"),
        (lambda: solve(penalty=torch.ones(4)), "penalty: expected a number or 5 finite values"),
        (lambda: solve(penalty=-torch.ones(5)), r"penalty=\[-1.0, .*: expected finite values >= 0"),
        (lambda: solve(penalty=penalty()), "groups=2: expected None"),
        (lambda: solve(penalty=penalty(weights=[1, 1, 1]), groups=None), "weights: expected 4 values"),
        (lambda: solve(penalty=penalty(weights=[1, 1, 1, 0]), groups=None), "weights=.*expected values > 0"),
        (lambda: solve(groups=3), "group_size=3"),
        (lambda: solve(data=torch.ones(5, 7)), "data: expected 6 columns"),
        (lambda: solve(data=torch.ones(5, 6).double()), "data: expected dtype torch.float32"),
        (lambda: solve(data=ONES.bfloat16(), dictionary=torch.ones(6, 8).bfloat16()),
         "data: expected float32 or float64, got .*bfloat16"),
        (lambda: solve(data=torch.full((5, 6), NAN)), "data: .*non-finite"),
        *each(solve, tol=(0.0,), max_iter=(-1,)),
        *[(lambda bad=bad: solve(init=bad), "^init: ")
          for bad in (torch.ones(5, 7), torch.ones(5, 8).double(), np.ones((5, 8)), torch.full((5, 8), NAN))],
        *each(lambda **bad: coding.penalty_path(ONES, torch.ones(6, 8), 2, **bad), n_penalties=(1,), ratio=(0.0, 1.0)),
        (lambda: coding.penalty_path(ONES, torch.ones(6, 8).double(), 2), "^data: expected dtype"),
        (lambda: coding.penalty_path(ONES, torch.ones(6, 8), GroupPenalty(1.0, 2, l1=-1)), "^l1="),
    ],
    "dictionaries": [
        (lambda: dictionary.normalize_columns(torch.full((2, 2), NAN)), "dictionary: .*non-finite"),
        (lambda: dictionary.normalize_columns(torch.ones(2)), "dictionary: .*two axes"),
        (lambda: dictionary.normalize_columns(torch.ones(2, 2).int()), "dictionary: .*floating"),
        (lambda: dictionary.orthonormalize_groups(WIDE, 5), "group_size=5: .*from 1 to 4"),
        (lambda: dictionary.orthonormalize_groups(WIDE, 3), "group_size=3"),
        (lambda: dictionary.block_coherence(WIDE, 3), "group_size=3"),
        (lambda: dictionary.coherence(torch.ones(2, 2) / 0), "dictionary: .*non-finite"),
        (lambda: dictionary.perturbed_dictionary(WIDE, 0.0, generator=rng()), "mean_correlation=0.0: .*> 0"),
        (lambda: dictionary.perturbed_dictionary(WIDE, 1.5, generator=rng()), "mean_correlation=1.5: .*<= 1"),
    ],
    "sources": [
        *each(source, n_active=(0, 7), codes=("cube",), snr_db=(math.inf, NAN), snr_of=("batch",), group_size=(4,)),
        (lambda: source(norm_range=(-1.0, 2.0)), r"norm_range\[0\]=-1.0"),
        (lambda: source(norm_range=(2.0, 1.0)), r"norm_range\[1\]=1.0: .*>= 2.0"),
        (lambda: source(dictionary=torch.full((3, 6), NAN)), "dictionary: .*non-finite"),
        (lambda: source(dictionary=torch.ones(6)), "dictionary: .*two axes"),
        (lambda: source(n_active=2).sample(3, generator=rng()).labels, "exactly one active group"),
        (lambda: generative.GroupSparseSample(EYE, EYE, torch.zeros(4, 4).bool()).labels, "exactly one active group"),
        (lambda: source().sample(0, generator=rng()), "n_samples=0"),
        (lambda: next(source().stream(True, generator=rng())), "batch_size=True"),
        (lambda: generative.GroupSparseSource.gaussian_mixture(torch.ones(3), snr_db=None), "means: .*two axes"),
        (lambda: generative.gaussian_dictionary(0, 2, 1, generator=rng()), "n_features=0"),
        (lambda: generative.gaussian_dictionary(4, 2.5, 1, generator=rng()), "n_groups=2.5"),
        (lambda: generative.orthonormal_groups_dictionary(4, 2, 5, generator=rng()), "group_size=5: .*from 1 to 4"),
        (lambda: generative.coherent_dictionary(20, 2, 2, 0.6, generator=rng()), "block_coherence=0.6: .*<= 0.5"),
        (lambda: generative.coherent_dictionary(20, 2, 2, -0.1, generator=rng()), "block_coherence=-0.1"),
        (lambda: generative.coherent_dictionary(5, 2, 2, 0.1, generator=rng()), "n_features=5: .*at least 6"),
        (lambda: generative.coherent_dictionary(3, 2, 2, 0.0, generator=rng()), "n_features=3: .*at least 4"),
        (lambda: generative.uniform_supports(0, 3, 1, generator=rng()), "n_samples=0"),
        (lambda: generative.uniform_supports(5, 3, 4, generator=rng()), "n_active=4: .*from 1 to 3"),
        *[(lambda given=given: Population(4, 2, 2, 1, given), "^norm_range")
          for given in (5.0, (4.0, 5.0, 6.0), (5.0, 4.0), ("a", 1.0))],
    ],
    "learning": [
        (lambda: started("labels"), "method='labels'.*'random', 'data'"),
        (lambda: started("data", 3), "n_groups=3: needs 6 .* got 4"),
        (lambda: k_subspaces(n_groups=3), "n_groups=3: needs 6 .* got 4"),
        *each(k_subspaces, n_groups=(0,), n_init=(0,), max_iter=(0,), tol=(-1.0,)),
        (lambda: k_subspaces(n_groups=1, group_size=9), "group_size=9: .*from 1 to 8"),
        (lambda: k_subspaces(WIDE / 0), "data: .*non-finite"),
        (lambda: alternating(batch_size=10), "generator=None"),
        *each(alternating, max_iter=(0,), tol=(-1.0,)),
        (lambda: searched(SAMPLES[0]), "data: .*two axes"),
        (lambda: searched(SAMPLES.int()), "data: .*floating"),
        (lambda: searched(SAMPLES / 0), "data: .*non-finite"),
        (lambda: searched(SAMPLES.half()), r"data: expected float32 or float64, got \(12, 8\) .*float16"),
        (lambda: searched(SAMPLES[:1]), "data: expected at least 2 samples, got 1"),
        *each(searched, n_groups=(0, 2.0), group_size=(0, 9), max_tries=(0,)),
        *[(lambda f=f: f(torch.zeros(2**24 + 1, 1)), "^data: expected at most 16777216 samples to search, got 16777217")
          for f in (searched, lambda data: k_subspaces(data, 1, 1))],
        (lambda: estimated(SAMPLES[:1]), "data: expected at least 2 samples, got 1"),
        (lambda: estimated(SAMPLES.bfloat16()), "data: expected float32 or float64"),
        (lambda: estimated(SAMPLES, 0), "n_groups=0"),
        (lambda: learning.code_anisotropy(SAMPLES / 0), "codes: .*non-finite"),
        (lambda: learning.code_anisotropy(SAMPLES[0]), "codes: .*two axes"),
    ],
    "metrics": [
        (lambda: metrics.dictionary_error(ONES, ONES[:, :4]), r"one shape.*\(4, 6\).*\(4, 4\)"),
        (lambda: metrics.dictionary_error(ONES[0], ONES[0]), r"matrices.*\(6,\)"),
        (lambda: metrics.dictionary_error(ONES / 0, ONES), "non-finite"),
        (lambda: metrics.rotated_dictionary_error(ONES, ONES[:3], 2), "one shape"),
        (lambda: metrics.rotated_dictionary_error(ONES, ONES, 4), "group_size=4"),
        (lambda: metrics.principal_angles(ONES, ONES[:3], 2), "one shape"),
        (lambda: metrics.principal_angles(ONES * NAN, ONES, 2), "non-finite"),
        (lambda: metrics.match_groups(ONES, ONES * NAN, 2), "non-finite"),
        (lambda: metrics.match_groups(ONES, ONES, 5), "group_size=5"),
        (lambda: metrics.support_recovery(ONES, ONES[:2], 2), "one shape"),
        (lambda: metrics.dead_groups(ONES, 4), "group_size=4"),
        (lambda: metrics.mean_active_groups(ONES, 0), "group_size=0"),
        (lambda: metrics.clustering_scores(torch.zeros(3), torch.zeros(4)), r"clusters.*\(3,\).*\(4,\)"),
        (lambda: metrics.clustering_scores(torch.zeros(0), torch.zeros(0)), "at least one"),
        (lambda: metrics.clustering_scores(["a", None, None], [0, 1, 2]),
         "labels: missing for 2 samples, first for number 1"),
        (lambda: metrics.clustering_scores([0, 1], [0.0, NAN]), "clusters: missing for 1 samples, first for number 1"),
        (lambda: metrics.clustering_scores(["ab"], "ab"), r"clusters.*\(1,\).*\(\)"),
        (lambda: metrics.distance_contrast(ONES, torch.zeros(3)), r"labels: expected 4.*\(3,\)"),
        (lambda: metrics.distance_contrast(ONES, torch.zeros(4)), "labels: .*two classes"),
        (lambda: metrics.distance_contrast(ONES, torch.arange(4)), "labels: .*two samples"),
        (lambda: metrics.distance_contrast(ONES, torch.ones(4) / 2), "^labels: expected a tensor of whole numbers"),
        (lambda: metrics.explained_variance(ONES, ONES[:2]), "one shape"),
        (lambda: metrics.explained_variance(ONES, ONES), "no variance|^data: expected samples that differ"),
        *[(lambda x=x: metrics.explained_variance(x, x + 1), "^data: expected samples that differ")
          for x in (torch.full((30, 3), 0.1), torch.full((30, 3), 0.1).double())],
        (lambda: strongest(atoms=ONES), "data: expected 4 columns"),
        (lambda: strongest(codes=ONES), "codes: expected 4 columns"),
        (lambda: strongest(n_active=3), "n_active=3: .*from 1 to 2"),
        (lambda: strongest(group_size=3), "group_size=3"),
        (lambda: strongest(codes=ONES[:2, :4]), r"codes: expected 4 samples.*\(2, 4\)"),
        (lambda: subspaces.subspace_overlaps(EYE, EYE[:3], 2), "other: expected 4 rows"),
        (lambda: subspaces.subspace_overlaps(EYE, EYE, 5), "group_size=5"),
        (lambda: subspaces.match_subspaces(EYE * NAN, EYE, 2), "non-finite"),
        (lambda: subspaces.subspace_capture(torch.ones(3, 4), EYE, 2), "no energy"),
        (lambda: subspaces.subspace_capture(EYE, EYE, 2, about="median"), "about='median'"),
        (lambda: subspaces.largest_capture(EYE, 5), "dimension=5"),
        *each(lambda every: DictionaryErrors(EYE, 2, every=every), every=(0, 1.5)),
    ],
    "clustering": [
        (lambda: clustering.kmeans_clusters(WIDE.T, WIDE.T, 9, random_state=0), "n_clusters=9: .*from 1 to 8"),
        (lambda: clustering.kmeans_clusters(WIDE.T, ONES.T[:, :3], 2, random_state=0), "test_features: expected 4 col"),
        (lambda: clustering.kmeans_clusters(WIDE.T, WIDE.T, 2, random_state=0, n_init=0), "n_init=0"),
        (lambda: clustering.spectral_clusters(WIDE.T, 0, 2, random_state=0), "n_clusters=0"),
        (lambda: clustering.spectral_clusters(WIDE.T, 8, 2, random_state=0), "n_clusters=8: .*from 1 to 7"),
        (lambda: clustering.spectral_clusters(WIDE.T, 2, 9, random_state=0), "n_neighbors=9: .*from 1 to 8"),
        (lambda: clustering.spectral_clusters(WIDE.T, 2, 2, random_state=0, n_components=8),
         "n_components=8: .*from 1 to 7"),
        (lambda: clustering.spectral_clusters(WIDE.T, 2, 5, random_state=2**40),
         "^random_state=1099511627776: expected an integer from 0 to 4294967295"),
        (lambda: clustering.strongest_group(WIDE.T, 3), "group_size=3"),
        (lambda: clustering.coactivation_groups(WIDE.T, 5, random_state=0), "n_clusters=5: .*from 1 to 4"),
        (lambda: clustering.ensemble_clusters(WIDE.T, 2, 2, random_state=0, n_runs=0), "n_runs=0"),
        (lambda: clustering.silhouettes(TABLE, [], random_state=0), "counts"),
        (lambda: choice(n_clusters=41), "n_samples=40: expected at least 41 for n_clusters=41"),
        *each(choice, n_clusters=(0,), method=("best",), scaling=("robust",), seconds=(0,), n_splits=(0,)),
        (lambda: choice(np.ones((1, 3)), n_clusters="auto"), "n_samples=1: expected at least 2"),
        (lambda: choice(np.ones((4, 0)), n_clusters="auto"), "X: "),
        (lambda: choice(np.array([[1.0, NAN], [0.0, 1.0]]), n_clusters="auto"), "X: "),
    ],
    "estimators": [
        *each(coder, alpha=(0.0,), output=("both",), tol=(-1.0,), groups=("pairs",)),
        (lambda: coder(groups=5), "groups=5: does not divide 12 components"),
        (lambda: coder(np.eye(3)), r"dictionary: expected \(components, 12\)"),
        (lambda: coder(np.full((4, 12), NAN)), "dictionary: expected finite"),
        (lambda: coder(np.zeros((0, 12))), "dictionary: expected"),
        (lambda: coder(groups=[2, 3]), "groups=.2, 3.: expected 5 components, got 12"),
        (lambda: coder(np.eye(12)[:6], groups=[[0, 1, 2], [2, 3, 4, 5]]), "groups=.*an atom is in several"),
        (lambda: coder(groups=[3, 4, 5], weights=[1.0, 2.0]), "weights: expected 3 values"),
        *each(learner, group_size=(13,), algorithm=("svd",), init=("zeros",), output=("squares",), batch_size=(0,)),
        (lambda: learner(1000, group_size=4), "n_samples=40: expected at least 4000"),
        (lambda: learner(2, group_size=[1, 2, 3]), "group_size=.1, 2, 3.: expected .* each of 2 groups"),
        (lambda: learner(group_size=[1, 13]), "group_size=13: .* to 12"),
        (lambda: learner(group_size=[1, 2], init="pairs", alpha=1.0), "one size for all groups"),
        (lambda: clusterer(40, n_groups=2, assign="spectral"), "n_samples=40 should be > n_clusters=40"),
        (lambda: clusterer(4, n_groups=5, assign="argmax"), "n_groups=5: expected n_clusters=4"),
        (lambda: clusterer(4, assign="spectral", n_components=41), "n_components=41"),
        (lambda: clusterer(41), "n_samples=40 should be >= n_clusters=41"),
        *each(clusterer, assign=("vote",), device=("gpu!", 1.5), random_state=(-1,), learning_rate=(0,)),
        (lambda: fit_scaling(np.ones((3, 2)), "log"), "method='log': expected .*'unit norm', 'standardize', 'none'"),
        (lambda: fit_scaling(np.ones(3), "none"), r"table: expected \(samples, features\), got ndarray \(3,\)"),
        (lambda: fit_scaling(np.ones((3, 2)), "none")(np.ones((3, 3))), r"table: expected 2 columns, got .* \(3, 3\)"),
        *[(lambda method=method, bad=bad: fit_scaling([[1, bad], [2, 3]], method),
           "table: has entries that are missing, infinite or too large")
          for method, bad in (("unit norm", NAN), ("standardize", NAN), ("none", NAN), ("none", -math.inf))],
    ],
    "sparse autoencoders": [
        (lambda: autoencoder(sae.GroupReLUSAE), "n_active=None, threshold=None: expected one of them"),
        (lambda: autoencoder(sae.GroupJumpReLUSAE, n_active=2, threshold=1.0), "expected one of them"),
        (lambda: autoencoder(n_active=None), "n_active=None: expected"),
        (lambda: autoencoder(sae.GroupTopKSAE, n_active=2.5), "n_active=2.5: expected an integer from 1 to 6"),
        (lambda: autoencoder(n_active=7), "n_active=7.0: expected"),
        (lambda: autoencoder(sae.GroupReLUSAE, threshold=0.0), "threshold=0.0: expected"),
        *each(lambda **bad: autoencoder(sae.GroupJumpReLUSAE, n_active=2, **bad), bandwidth=(3.0,),
              sparsity_weight=(0.0,)),
        *each(lambda **bad: autoencoder(n_active=2, **bad), decoder=("orthogonal",)),
        (lambda: autoencoder(n_active=2, dictionary=torch.ones(3, 4)), "dictionary: expected shape"),
        (lambda: autoencoder(n_active=2, dictionary=torch.eye(7, 12).tolist()), "^dictionary: expected shape"),
        (lambda: autoencoder(n_active=2, dictionary=None), "generator=None"),
        (lambda: autoencoder(n_active=2).prepare(torch.full((9, 7), NAN)), "non-finite"),
        (lambda: autoencoder(n_active=2).prepare(torch.ones(9, 3)), "expected"),
        (lambda: autoencoder(n_active=2).prepare(torch.ones(9, 7)), "no variance"),
        (lambda: autoencoder(n_active=2).prepare(torch.ones(1, 7)), "at least two"),
        (lambda: autoencoder(n_active=2).prepare("states.npy"), "got str"),
        *[(lambda call=call, bad=bad: call(autoencoder(sae.GroupTopKSAE, n_active=2), bad), "data: expected")
          for call in (sae.GroupTopKSAE.encode, sae.GroupTopKSAE.training_loss)
          for bad in (torch.ones(4, 3), torch.ones(4, 7).double())],
        (lambda: sae.description_length(torch.ones(3, 4), EYE, 2, 0.0), "distortion="),
        (lambda: sae.description_length(torch.ones(0, 4), EYE, 2, 1.0), "at least one sample"),
        (lambda: features(group_sizes=(1, 2)), "group_sizes: expected 4 in all, got 3"),
        (lambda: features(group_sizes=(1, 0, 3)), "group_sizes=0"),
        (lambda: features(frequencies=torch.tensor([0.5, 1.5, 0.1])), "frequencies: expected 3 values"),
        (lambda: features(parents=torch.tensor([-1, 1, 0])), "parents: expected -1 or an earlier group"),
        (lambda: features(parents=torch.tensor([-1, -1, 1]), frequencies=torch.tensor([0.5, 0.1, 0.2])),
         "at least as often"),
        (lambda: features(norm_range=(2.0, 1.0)), r"norm_range\[1\]=1.0"),
        *each(features, noise_std=(-1.0,)),
        *each(planned, n_active=(40.0,), children=(1.5,)),
        (lambda: planned(sizes=(1, 9)), "sizes=9"),
        (lambda: planned(sizes=()), "sizes: expected"),
        (lambda: sae.zipf_frequencies(10, 1.0, exponent=400.0), "^exponent=400"),
    ],
    "training": [
        *each(TrainingSettings, epochs=(0, 1.5), learning_rate=(0.0, NAN), batch_size=(0,), optimizer=("lbfgs",),
              normalize=("rows",), steps_per_epoch=(0,)),
        (lambda: training(torch.ones(4, 9)), r"data: expected 10 columns.*\(4, 9\)"),
        (lambda: training(torch.ones(10)), "data: .*two axes"),
        (lambda: training(torch.full((4, 10), NAN)), "data: .*non-finite"),
        (lambda: training(np.full((4, 10), math.inf)), "data: .*non-finite"),
        (lambda: training(torch.ones(0, 10)), r"data: .*at least one sample.*\(0, 10\)"),
        (lambda: training(iter([torch.ones(4, 9)])), r"data: expected batches \(samples, 10\).*\(4, 9\)"),
        *[(lambda bad=bad: training(iter([bad])), "^data: expected batches")
          for bad in (torch.empty(0, 10), [1.0], torch.ones(10))],
        (lambda: training(iter([])), "data: the stream ended"),
        (lambda: training(np.ma.masked_greater(np.eye(10), 0.5)), "^data: 10 entries of a masked array are missing"),
        (lambda: training(np.array([["a"]], dtype=object)), "^data: expected an array of numbers"),
        (lambda: training(torch.eye(10), callbacks=print), "^callbacks="),
        (lambda: training(torch.eye(10), callbacks=[1]), "^callbacks="),
        (lambda: train_layers(STACK, torch.zeros(2, 6), TrainingSettings(), generator=rng()), r"model.passed='codes'"),
        *[(lambda bad=bad: training(torch.eye(10), checkpoint=bad), "^checkpoint=.*: expected the path of a file")
          for bad in ("", ".", "new/", 5, True, "a\0b")],
        *[(lambda settings=settings: learner(checkpoint="run", random_state=0, **settings), "expected None with")
          for settings in ({"algorithm": "alternating"}, {"max_iter": 0})],
        (lambda: learner(checkpoint="run"), "expected None with random_state=None"),
        (lambda: learner(checkpoint=3, random_state=0), "checkpoint=3: expected the path"),
        *each(lambda **bad: Checkpoint("run", **bad), every_epochs=(0, 1.5), every_minutes=(0.0,)),
    ],
}  # fmt: skip
ROWS = [pytest.param(*row, id=f"{part}: {row[1]}") for part, rows in REFUSED.items() for row in rows]


@pytest.mark.parametrize(("call", "message"), ROWS)
def test_what_cannot_be_is_refused_in_one_line(call, message, tmp_path, monkeypatch):
    """Fails if a bad argument is accepted, is an error of torch, or not named; or if a file is written."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
