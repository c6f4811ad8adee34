"""The generative model: exact structure, and moments within Monte Carlo bounds."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from true_groups import assert_orthonormal, blocks_of

from gsae_lib import GroupSparseAutoencoder, TrainingSettings, train
from gsae_lib.dictionary import block_coherence
from gsae_lib.generative import (
    GroupSparseSource,
    coherent_dictionary,
    gaussian_dictionary,
    orthonormal_groups_dictionary,
    uniform_supports,
)
from gsae_lib.groups import active_groups, group_norms, to_groups

RARE = 1e-6  # the chance that a correct library fails one statistical test


def source(rng, **settings):
    dictionary = gaussian_dictionary(10, 6, 3, generator=rng, dtype=torch.float64)
    return GroupSparseSource(dictionary, 3, **{"n_active": 2} | settings)


def assert_uniform(counts):
    """Chi-square test of equal probabilities at level RARE."""
    statistic = scipy.stats.chisquare(counts).statistic
    assert statistic < scipy.stats.chi2.isf(RARE, len(counts) - 1)


def test_gaussian_dictionary_has_unit_columns_in_every_direction(rng, dtype):
    """Fails if rows are normalised instead, or directions are not isotropic (mean of a a^T is I / n)."""
    a = gaussian_dictionary(4, 5000, 2, generator=rng, dtype=dtype).numpy()
    assert a.shape == (4, 10000) and a.dtype == (np.float32 if dtype == torch.float32 else np.float64)
    np.testing.assert_allclose(np.linalg.norm(a, axis=0), 1, rtol=1e-6)
    # Hoeffding: an entry of a a^T varies over at most 1, and there are 10 different ones.
    bound = math.sqrt(math.log(2 * 10 / RARE) / (2 * 10000))
    np.testing.assert_allclose(a @ a.T / 10000, np.eye(4) / 4, rtol=0, atol=bound)


def test_orthonormal_groups_are_orthonormal_and_isotropic(rng, dtype):
    """Fails if A_g^T A_g is not I, or if the subspaces prefer a direction (mean of A_g A_g^T is (d / n) I)."""
    a = orthonormal_groups_dictionary(6, 4000, 2, generator=rng, dtype=dtype)
    assert_orthonormal(a[:, :100], 2, atol=1e-6)
    projection = sum(block @ block.T for block in blocks_of(a, 2)) / 4000
    bound = math.sqrt(math.log(2 * 21 / RARE) / (2 * 4000))  # Hoeffding: entries of a projection vary over at most 1
    np.testing.assert_allclose(projection, 2 / 6 * np.eye(6), rtol=0, atol=bound)


@pytest.mark.parametrize(
    ("n_features", "group_size", "mu"), [(16, 1, 0.4), (16, 3, 0.1), (16, 3, 1 / 3), (16, 2, 0.5), (12, 3, 0.0)]
)
def test_coherent_dictionary_has_exactly_the_block_coherence(n_features, group_size, mu, rng):
    """Fails if A_g^T A_h is not d mu I for every pair, or orthogonal groups ask for more features than atoms."""
    a = coherent_dictionary(n_features, 4, group_size, mu, generator=rng, dtype=torch.float64)
    blocks = blocks_of(a, group_size)
    for g, h in itertools.product(range(4), repeat=2):
        expected = np.eye(group_size) * (1.0 if g == h else group_size * mu)
        np.testing.assert_allclose(blocks[g].T @ blocks[h], expected, rtol=0, atol=1e-14)
    assert block_coherence(a, group_size) == pytest.approx(mu, abs=1e-14)


@pytest.mark.parametrize(("n_groups", "n_active"), [(5, 2), (6, 3), (4, 1), (4, 4)])
def test_supports_have_exact_size_and_are_uniform(n_groups, n_active, rng):
    """Fails if a support has another size, or if any of the C(Gamma, gamma) supports is favoured (chi-square)."""
    support = uniform_supports(20000, n_groups, n_active, generator=rng)
    assert support.dtype == torch.bool and (support.sum(dim=1) == n_active).all()
    codes = (support.int() @ (2 ** torch.arange(n_groups, dtype=torch.int32))).numpy()
    names, counts = np.unique(codes, return_counts=True)
    assert len(names) == math.comb(n_groups, n_active)
    if len(names) > 1:
        assert_uniform(counts)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_sphere_codes_have_uniform_norms_and_isotropic_directions(nonnegative, rng):
    """Fails if norms leave their range (negative entries are to be reflected), or E[x_g x_g^T] is not (E c^2 / d) I."""
    low, high = 4.0, 5.0
    draw = source(rng, norm_range=(low, high), nonnegative=nonnegative).sample(20000, generator=rng)
    active = to_groups(draw.codes, 3)[draw.support].numpy()
    norms = np.linalg.norm(active, axis=1)
    assert low - 1e-12 <= norms.min() and norms.max() <= high + 1e-12
    assert scipy.stats.kstest(norms, "uniform", (low, high - low)).pvalue > RARE
    # A coordinate of a uniform direction on the sphere of R^3 is uniform in [-1, 1] (Archimedes).
    for coordinate in (active / norms[:, None]).T:
        assert scipy.stats.kstest(coordinate, "uniform", (0, 1) if nonnegative else (-1, 2)).pvalue > RARE
    if not nonnegative:
        moment = (low**2 + low * high + high**2) / 3 / 3
        bound = high**2 * math.sqrt(math.log(2 * 6 / RARE) / (2 * len(active)))  # Hoeffding: entries vary over high^2
        assert bound < 0.06 * moment
        np.testing.assert_allclose(active.T @ active / len(active), moment * np.eye(3), rtol=0, atol=bound)


def test_groups_are_independent_given_the_support(rng):
    """Fails if two active groups share a direction or a norm: their cross moments vanish."""
    draw = source(rng, n_active=6).sample(20000, generator=rng)
    blocks = to_groups(draw.codes, 3)
    cross = (blocks[:, 0].T @ blocks[:, 1] / len(blocks)).numpy()
    bound = 2 * 25 * math.sqrt(math.log(2 * 9 / RARE) / (2 * len(blocks)))  # Hoeffding on [-25, 25]
    np.testing.assert_allclose(cross, 0, rtol=0, atol=bound)
    norms = group_norms(draw.codes, 3).numpy()
    assert abs(np.corrcoef(norms[:, 0], norms[:, 1])[0, 1]) < 5 / math.sqrt(len(blocks))


def test_gaussian_codes_are_standard_normal(rng):
    """Fails if entries of an active group are rescaled or correlated."""
    draw = source(rng, codes="gaussian").sample(20000, generator=rng)
    active = to_groups(draw.codes, 3)[draw.support].numpy()
    assert scipy.stats.kstest(active.ravel(), "norm").pvalue > RARE
    bound = 5.5 * math.sqrt(2 / len(active))  # entries of the sample covariance have variance at most 2 / N
    np.testing.assert_allclose(active.T @ active / len(active), np.eye(3), rtol=0, atol=bound)


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize(
    ("group_size", "settings"),
    [
        (3, {}),
        (3, {"codes": "gaussian", "n_active": 2}),
        (2, {"n_active": 3, "norm_range": (0.5, 5.0)}),
        (1, {"n_active": 6}),
    ],
)
def test_energy_is_that_of_many_samples(group_size, settings, nonnegative, rng):
    """Fails if a moment of the closed form is wrong: 5.5 standard errors, P < 1e-7, and each below 0.4 %."""
    # Columns lean one way and have other lengths than one, so that every term counts.
    dictionary = torch.rand(5, 6 * group_size, generator=rng, dtype=torch.float64) * torch.arange(1, 6)[:, None]
    drawn = GroupSparseSource(dictionary, group_size, nonnegative=nonnegative, **settings)
    energies = drawn.sample(400_000, generator=rng).data.square().sum(dim=1)
    error = energies.std().item() / len(energies) ** 0.5
    assert drawn.energy == pytest.approx(energies.mean().item(), abs=5.5 * error) and error < 0.004 * drawn.energy


def test_energy_of_codes_that_are_known():
    """Fails if a term is lost: all entries of the code are 2 here, so that the energy is ||2 A 1||^2 to rounding."""
    dictionary = torch.tensor([[1.0, 2.0, -4.0], [0.5, 0.0, 3.0]])
    ones = GroupSparseSource.sparse(dictionary, 3, nonnegative=True, norm_range=(2.0, 2.0))
    assert ones.energy == pytest.approx(4 * (1.0 + 3.5**2), rel=1e-15)
    signs = GroupSparseSource.sparse(dictionary, 3, norm_range=(2.0, 2.0))
    assert signs.energy == pytest.approx(4 * (1 + 4 + 16 + 0.25 + 9), rel=1e-15)


@pytest.mark.parametrize("snr_of", ["source", "sample"])
@pytest.mark.parametrize("snr_db", [-3.0, 0.0, 10.0])
def test_noise_has_exactly_the_stated_variance(snr_db, snr_of, rng):
    """Fails if the SNR is a ratio of amplitudes, is set for each sample, or is of the other energy."""
    dictionary = gaussian_dictionary(3000, 6, 3, generator=rng, dtype=torch.float64)
    noisy = GroupSparseSource(dictionary, 3, 2, norm_range=(1.0, 5.0), snr_db=snr_db, snr_of=snr_of)
    draw = noisy.sample(4, generator=rng)
    signal = (draw.codes @ dictionary.T).numpy()
    noise = draw.data.numpy() - signal
    powers = {"source": noisy.energy / 3000, "sample": np.mean(signal**2)}
    assert powers["sample"] / powers["source"] != pytest.approx(1, rel=0.2)
    variance = powers[snr_of] / 10 ** (snr_db / 10)
    assert scipy.stats.kstest((noise / variance**0.5).ravel(), "norm").pvalue > RARE
    assert np.mean(noise**2) == pytest.approx(variance, rel=5 * math.sqrt(2 / noise.size))
    assert abs(np.corrcoef(noise.ravel(), signal.ravel())[0, 1]) < 5 / math.sqrt(noise.size)
    strong = (signal**2).sum(1) > np.median((signal**2).sum(1))  # the same level for strong and quiet samples
    assert np.mean(noise[strong] ** 2) == pytest.approx(
        np.mean(noise[~strong] ** 2), rel=10 * math.sqrt(4 / noise.size)
    )


@pytest.mark.parametrize("nonnegative", [False, True])
def test_sparse_codes(nonnegative, rng):
    """Fails if groups of one do not give plain sparsity, of either sign or one."""
    dictionary = gaussian_dictionary(8, 12, 1, generator=rng, dtype=torch.float64)
    sparse = GroupSparseSource.sparse(dictionary, 3, nonnegative=nonnegative, norm_range=(1.0, 2.0))
    assert sparse.noise_std == 0.0
    codes = sparse.sample(2000, generator=rng).codes
    assert (codes.count_nonzero(dim=1) == 3).all()
    values = codes[codes != 0]
    assert (values.abs() >= 1).all() and (values.abs() <= 2).all()
    positive = (values > 0).double().mean().item()
    bound = math.sqrt(math.log(2 / RARE) / (2 * len(values)))  # Hoeffding
    assert positive == 1.0 if nonnegative else abs(positive - 0.5) < bound


def test_gaussian_mixture(rng):
    """Fails if the labels are not the components: without noise every sample is the mean that its label names."""
    means = torch.randn(5, 7, generator=rng, dtype=torch.float64)
    draw = GroupSparseSource.gaussian_mixture(means, snr_db=None).sample(5000, generator=rng)
    torch.testing.assert_close(draw.data, means[draw.labels])
    assert_uniform(np.bincount(draw.labels.numpy(), minlength=5))
    noisy = GroupSparseSource.gaussian_mixture(means, snr_db=10.0).sample(5000, generator=rng)
    residual = noisy.data - means[noisy.labels]
    assert residual.var().item() == pytest.approx(means[noisy.labels].square().mean().item() / 10, rel=0.05)


def test_union_of_subspaces(rng):
    """Fails if a sample is not in the span of the group that its label names, or labels are not uniform."""
    dictionary = gaussian_dictionary(10, 4, 3, generator=rng, dtype=torch.float64)
    draw = GroupSparseSource.union_of_subspaces(dictionary, 3).sample(4000, generator=rng)
    assert_uniform(np.bincount(draw.labels.numpy(), minlength=4))
    for g, block in enumerate(blocks_of(dictionary, 3)):
        data = draw.data[draw.labels == g].numpy().T
        fitted = block @ np.linalg.lstsq(block, data, rcond=None)[0]
        np.testing.assert_allclose(fitted, data, rtol=0, atol=1e-12)


def test_the_generator_decides_the_draw(rng):
    """Fails if global randomness is used, or a stream is anything but consecutive draws of one generator."""
    noisy, before = source(rng, snr_db=3.0), torch.get_rng_state()
    stream = noisy.stream(20, generator=torch.Generator().manual_seed(1))
    again = torch.Generator().manual_seed(1)
    draws = [noisy.sample(20, generator=again) for _ in range(5)]
    for draw, batch in zip(draws, stream, strict=False):
        for field in ("data", "codes", "support"):
            assert torch.equal(getattr(draw, field), getattr(batch, field))
    other = noisy.sample(20, generator=torch.Generator().manual_seed(2))
    assert len({draw.data.sum().item() for draw in (*draws, other)}) == 6
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("codes", ["sphere", "gaussian"])
@pytest.mark.parametrize(("n_active", "group_size"), [(1, 1), (2, 3), (5, 2)])
def test_data_are_the_sum_of_the_active_atoms(codes, n_active, group_size, rng, dtype, device):
    """Fails if a value is written outside of its group or meets another atom, where few or many are active."""
    dictionary = gaussian_dictionary(30, 60, group_size, generator=rng, dtype=dtype).to(device)
    for size in (60, n_active + 1):
        some = dictionary[:, : size * group_size]
        draw = GroupSparseSource(some, group_size, n_active, codes=codes).sample(50, generator=rng)
        assert draw.data.dtype == draw.codes.dtype == dtype
        assert draw.data.device == draw.support.device == dictionary.device
        assert torch.equal(active_groups(draw.codes, group_size), draw.support)
        assert (draw.support.sum(dim=1) == n_active).all()
        exact = draw.codes.double().cpu().numpy() @ some.double().cpu().numpy().T
        np.testing.assert_allclose(draw.data.cpu().numpy(), exact, atol=1e-5 if dtype == torch.float32 else 1e-13)


def test_a_stream_that_draws_ahead_depends_on_the_generator_alone(rng):
    """Fails if what is done between two batches changes them, or a batch is drawn twice or left out."""
    model = source(rng)
    own = torch.Generator().manual_seed(5)
    expected = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=own)))
    state, count = own.get_state(), torch.get_num_threads()
    own.manual_seed(5)
    stream = model.stream(7, generator=own, ahead=True)
    assert torch.equal(own.get_state(), state)  # the seed is drawn at once, and nothing else
    for _ in range(4):
        torch.randn(3, generator=own)
        draw = model.sample(7, generator=expected)
        torch.testing.assert_close(next(stream).data, draw.data, rtol=1e-12, atol=1e-12)
    stream.close()  # its thread ends
    assert torch.get_num_threads() == count


def test_training_on_a_stream_ahead_is_resumed(rng, tmp_path):
    """Fails if a checkpoint cannot put such a stream back where it was."""
    model_source, weights = source(rng), []
    for stops in ((4,), (2, 4)):
        for epochs in stops:
            generator = torch.Generator().manual_seed(1)
            start = model_source.dictionary + 0.05
            model = GroupSparseAutoencoder(10, 6, 3, 0.5, step_size=1.0, dictionary=start)
            stream = model_source.stream(20, generator=generator, ahead=True)
            plan = TrainingSettings(epochs=epochs, progress=False)
            train(model, stream, plan, generator=generator, checkpoint=tmp_path / f"run{len(stops)}")
        weights.append(model.weight.detach())
    assert torch.equal(*weights)
