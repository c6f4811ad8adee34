"""Legal input at the edges of what is allowed, and input that is refused in one line, across the library."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from gsae_lib import (
    GroupSparseAutoencoder,
    GroupSparseClustering,
    GroupSparseCoder,
    GroupSparseSource,
    TrainingError,
    TrainingSettings,
    certify,
    group_sparse_code,
    train,
)
from gsae_lib.activations import group_relu
from gsae_lib.clustering import cluster_norms, kmeans_clusters, spectral_clusters
from gsae_lib.dictionary import block_coherence, normalize_columns
from gsae_lib.metrics import distance_contrast, principal_angles, reconstruct_from_strongest
from gsae_lib.networks import LayeredAutoencoder, LayeredSource, shallow_gradient
from gsae_lib.penalty import GroupPenalty
from gsae_lib.sae import BatchTopKSAE, export_sae_lens, synthetic_features
from gsae_lib.theory import Population, Quantity
from gsae_lib.theory.floors import noise_floor
from gsae_lib.theory.population import orthonormality
from gsae_lib.training.checkpoints import identify_run


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def problem(rng):
    return [torch.randn(shape, generator=rng, dtype=torch.float64) for shape in ((12, 8), (8, 12))]


def test_a_start_with_negative_entries_does_not_pass_for_a_nonnegative_code(rng):
    """Fails if codes of another problem are returned as converged, with an objective of infinity."""
    data, dictionary = problem(rng)
    start = group_sparse_code(data, dictionary, 0.1, 2).codes
    assert (start < 0).any()
    penalty = GroupPenalty(0.1, 2, nonnegative=True)
    found = group_sparse_code(data, dictionary, penalty, init=start)
    expected = group_sparse_code(data, dictionary, penalty)
    assert found.converged.all() and (found.codes >= 0).all()
    torch.testing.assert_close(found.objective, expected.objective, rtol=1e-4, atol=0)


def test_checkpoints_know_what_is_inside_a_model(rng):
    """Fails if a layer's own settings do not tell a run from another."""

    def identity(nonnegative=False, **settings):
        penalty = GroupPenalty(0.1, 2, nonnegative=nonnegative)
        layers = [GroupSparseAutoencoder(8, 4, penalty=penalty, dictionary=torch.eye(8), **settings)]
        layers.append(GroupSparseAutoencoder(4, 2, 2, 0.1, dictionary=torch.eye(4)))
        return identify_run(LayeredAutoencoder(layers), rng, type("None", (), {"identity": dict})(), {})

    assert identity(n_iterations=1) != identity(n_iterations=5)
    assert identity(nonnegative=True) != identity() == identity()


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_the_score_does_not_know_the_unit_of_the_dictionary(rng, scale):
    """Fails if a singular system is made regular by a number that has a unit."""
    data, dictionary = problem(rng)
    codes = data @ dictionary
    expected = reconstruct_from_strongest(data, dictionary, codes, 2, 2)
    found = reconstruct_from_strongest(data, scale * dictionary, codes, 2, 2)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    assert not reconstruct_from_strongest(data, 0 * dictionary, codes, 2, 2).any()


@pytest.mark.parametrize(
    "source",
    [
        GroupSparseSource(torch.eye(2), 1, 2),
        LayeredSource((torch.eye(4), torch.eye(2)), (2, 2), 1, n_children=1),
        synthetic_features(8, 6, n_active=2.0, sizes=(1, 2), generator=torch.Generator().manual_seed(0)),
    ],
    ids=lambda source: type(source).__name__,
)
def test_a_draw_of_zero_has_a_direction(monkeypatch, source):
    """Fails if a number that is drawn as 0, one in some millions in float32, makes a sample NaN or a norm too small."""
    randn = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *shape, **settings: 0 * randn(*shape, **settings))
    sample = source.sample(50, generator=torch.Generator().manual_seed(0))
    codes = sample.codes[0] if isinstance(source, LayeredSource) else sample.codes
    assert sample.data.isfinite().all() and codes.isfinite().all()
    assert codes[codes != 0].abs().min() > 0.35 and (codes != 0).any()


def test_a_copy_that_is_cut_anew_has_no_evidence(rng, tmp_path):
    """Fails if what was judged at another number of clusters stays, after which saving is refused."""
    data = torch.randn(60, 6, generator=rng).numpy()
    model = GroupSparseClustering(3, n_groups=4, group_size=2, random_state=0, assign="kmeans").fit(data)
    assert model.evidence_ is not None and model.recluster(data, 2).evidence_ is None
    model.recluster(data, 2).save(tmp_path / "other")


def test_zero_samples_are_named(rng):
    """Fails if data without any direction are blamed on the penalty."""
    with pytest.raises(TrainingError, match=r"^X: all samples are zero"):
        GroupSparseClustering(2, random_state=0).fit(np.zeros((20, 4)))


def test_halves_that_no_group_explains_weigh_nothing():
    """Fails if a half of few samples, in which no group is active, ends the choice."""
    centres = 6 * np.random.default_rng(0).standard_normal((3, 6))
    for count in (9, 10):
        data = centres[np.arange(count) % 3] + np.random.default_rng(1).standard_normal((count, 6))
        chosen = GroupSparseClustering(2, method="auto", random_state=0).fit(data)
        assert len(chosen.labels_) == count and "in a half of the samples no group is active" in chosen.reason_
    lonely = np.zeros((40, 4))
    lonely[7] = 1
    model = GroupSparseClustering(2, method="auto", scaling="none", random_state=0)
    assert set(model.fit_predict(lonely)) == {0, 1}


def test_groups_that_are_all_active_have_no_floor():
    """Fails if a rate of zero, at which noise adds up, is divided by."""
    assert 0 < noise_floor(Population(10, 4, 2, 4), 1.0, 1e-3, 10) < math.inf
    assert noise_floor(Population(10, 4, 2, 4, noise_std=0.1), 1.0, 1e-3, 10) == math.inf
    assert noise_floor(Population(10, 1, 2, 1), 1.0, 1e-3, 10) == 0.0


@pytest.mark.parametrize(("n_features", "n_groups"), [(1, 1), (2, 3), (3, 2)])
def test_a_certificate_of_few_features(rng, n_features, n_groups):
    """Fails if a group that fills the space has no step, or a Hessian is too small for its eigenvalue."""
    dictionary = normalize_columns(torch.randn(n_features, n_groups, generator=rng, dtype=torch.float64))
    data = torch.randn(30, n_features, generator=rng, dtype=torch.float64)
    found = certify(data, dictionary, 0.1, 1)
    step = found[Quantity.STABLE_STEP].value

    def loss(w):
        return (data - group_relu(data @ w, 0.1, 1) @ w.T).square().sum() / (2 * len(data))

    hessian = torch.func.hessian(loss)(dictionary).reshape(dictionary.numel(), -1)
    assert 2 / step == pytest.approx(torch.linalg.eigvalsh(hessian).max().item(), rel=0.02)
    if n_features == 1:
        assert found[Quantity.RIEMANNIAN_STEP].value == math.inf


def test_precisions_may_differ_or_be_half(rng):
    """Fails if samples of another precision than those that were fitted, or in half precision, are an error."""
    data = torch.randn(40, 4, generator=rng)
    for first, second in ((data, data.double()), (data.bfloat16(), data.half()), (data.double(), data.half())):
        assert len(kmeans_clusters(first, second, 2, random_state=0)[1]) == 40
    for method in ("kmeans", "spectral"):
        assert len(cluster_norms(data.numpy(), data.double().numpy(), 2, method, random_state=0)[1]) == 40
    assert len(spectral_clusters(data.bfloat16(), 2, 5, random_state=0)) == 40
    half = torch.eye(4).half()
    assert block_coherence(half, 2) == orthonormality(half, 2) == 0
    assert principal_angles(half, half, 2).abs().max() < 1e-3
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(ValueError, match=r"^data: expected float32 or float64 on the CPU"):
            shallow_gradient(data.to(dtype), torch.eye(4, dtype=dtype), 1.0, 2)
        model = BatchTopKSAE(4, 4, 1, n_active=1, nonnegative=True, generator=rng).to(dtype)
        for write in (model.save, lambda path, model=model: export_sae_lens(model, path)):
            with pytest.raises(ValueError, match=r"^weight: expected float32 or float64"):
                write("never")


def test_arrays_of_any_layout_train_alike(rng):
    """Fails if strides or the byte order of an array change what it trains, or a batch of nan is not told."""
    model = GroupSparseAutoencoder(4, 2, 2, 0.1, generator=rng)
    settings = TrainingSettings(epochs=1, steps_per_epoch=1, batch_size=5)
    data = torch.randn(10, 4, generator=rng).numpy()
    start = {k: v.clone() for k, v in model.state_dict().items()}
    found = []
    for given in (data[::-1].copy(), data[::-1], data[::-1].astype(">f4")):
        model.load_state_dict(start)
        found.append(train(model, given, settings, generator=torch.Generator().manual_seed(1)).loss)
    assert found[0] == found[1] == found[2]
    train(model, iter([data]), settings, generator=rng)
    with pytest.raises(TrainingError, match="data: a batch holds"):
        train(model, iter([data * np.nan]), settings, generator=rng)


@pytest.mark.parametrize("unit", [2.0**-200, 2.0**-60, 2.0**460])
def test_clusters_do_not_know_the_unit_of_the_data(rng, unit):
    """Fails if fourth powers of the data overflow, or vanish."""
    data = torch.randn(60, 5, generator=rng, dtype=torch.float64).numpy()
    one, other = (GroupSparseClustering(3, random_state=0).fit(values) for values in (data, unit * data))
    assert adjusted_rand_score(one.labels_, other.labels_) > 0.9
    assert other.intercept_ == pytest.approx(unit * one.intercept_)
    first, second = one.evidence_, other.evidence_
    for name in ("explained_by_subspaces", "stability_of_centres"):
        assert second[name] == pytest.approx(first[name], abs=0.02)
    gains = [found["log_likelihood_of_model"] - found["log_likelihood_of_centres"] for found in (first, second)]
    assert gains[0] == pytest.approx(gains[1], abs=0.05)
    moved = first["log_likelihood_of_centres"] - second["log_likelihood_of_centres"]
    assert moved == pytest.approx(5 * math.log(unit), abs=0.05)


def test_classes_may_be_booleans(rng):
    data, _ = problem(rng)
    contrast = distance_contrast(data[:3], torch.tensor([0, 0, 1]))
    assert contrast == distance_contrast(data[:3], torch.tensor([False, False, True])) > 0


def test_a_dictionary_in_another_order_is_saved_as_it_codes(rng, tmp_path):
    """Fails if codes change by saving."""
    data, dictionary = (x.numpy() for x in problem(rng))
    model = GroupSparseCoder(np.asfortranarray(dictionary.T), alpha=0.5).fit(data)
    model.save(tmp_path / "coder")
    assert (GroupSparseCoder.load(tmp_path / "coder").transform(data) == model.transform(data)).all()
