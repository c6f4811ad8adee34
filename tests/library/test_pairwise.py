"""Groups from pairs of samples: planted groups are found, estimates are near the truth, odd data do no harm."""

import itertools
import math

import numpy as np
import pytest
import torch
from true_groups import assert_orthonormal, blocks_of

from gsae_lib.estimators import GroupSparseClustering, GroupSparseDictionaryLearning
from gsae_lib.generative import GroupSparseSource, gaussian_dictionary, orthonormal_groups_dictionary
from gsae_lib.learning import (
    GroupsMissingWarning,
    code_anisotropy,
    estimate_group_size,
    find_groups,
    initial_dictionary,
    pairwise,
    repeat_on_halves,
)
from gsae_lib.theory.population import spherical_design

BATCH, LAST = 64, 384  # pairs tried at a time, and by a last search after the limit: as documented


def largest_angles(dictionary, true_dictionary, group_size):
    """For each true group and each found one the largest principal angle in degrees, (true, found)."""
    found, true = ([np.linalg.qr(b)[0] for b in blocks_of(a, group_size)] for a in (dictionary, true_dictionary))
    cosines = [[np.linalg.svd(a.T @ b)[1].min() for b in found] for a in true]
    return np.degrees(np.arccos(np.clip(np.array(cosines).reshape(len(true), len(found)), 0, 1)))


def share_found(dictionary, true_dictionary, group_size):
    """Share of true groups within 15 degrees of some found one."""
    angles = largest_angles(dictionary, true_dictionary, group_size)
    return (angles.min(axis=1, initial=90) < 15).mean()


def planted(rng, n_features=150, n_groups=50, group_size=2, n_active=3, n_samples=1500, dtype=torch.float32):
    """A dictionary and samples of it at 20 dB, as in chapter 11."""
    truth = gaussian_dictionary(n_features, n_groups, group_size, generator=rng, dtype=dtype)
    source = GroupSparseSource(truth, group_size, n_active, norm_range=(4.0, 5.0), snr_db=20.0, snr_of="sample")
    return truth, source.sample(n_samples, generator=rng)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def assert_sane(found, n_groups=None):
    """No nan anywhere, orthonormal groups, no more than asked, sizes that agree."""
    for numbers in (found.dictionary, found.scores, found.anisotropy):
        assert numbers.isfinite().all()
    assert all(math.isfinite(value) for value in (found.n_active, found.noise_std, found.penalty))
    assert found.noise_std >= 0 and found.penalty >= 0
    assert found.dictionary.shape[1] == found.n_groups * found.group_size
    assert len(found.scores) == len(found.anisotropy) == len(found.n_samples) == found.n_groups
    assert n_groups is None or found.n_groups <= n_groups
    assert_orthonormal(found.dictionary, found.group_size, atol=1e-4)


# What is found


@pytest.mark.parametrize("n_active", [1, 3])
def test_finds_all_groups(n_active, rng, dtype, device):
    """Fails if a group is missed or mixed with another, or if an estimate, the order or the precision is wrong."""
    truth, sample = planted(rng, n_active=n_active, dtype=dtype)
    data = sample.data.to(device)
    before = data.clone()
    found = find_groups(data, 50, 2, generator=rng)
    assert torch.equal(data, before)
    assert found.dictionary.dtype == dtype and found.dictionary.device == data.device
    assert_sane(found, 50)
    assert found.n_groups == 50 and found.group_size == 2 and found.n_tries % BATCH == 0
    assert_orthonormal(found.dictionary, 2)
    angles = largest_angles(found.dictionary, truth, 2)
    assert (angles.min(axis=1) < 15).all()
    true_counts = sample.support.sum(dim=0).numpy()[angles.argmin(axis=0)]
    np.testing.assert_allclose(found.n_samples.cpu(), true_counts, rtol=0.15)
    assert (found.n_samples.diff() <= 0).all()  # the most used first
    assert (found.scores > pairwise.SCORE).all() and (found.anisotropy < 1.6).all()
    assert found.n_active == pytest.approx(n_active, rel=0.02)
    assert found.n_active == pytest.approx(found.n_samples.sum().item() / 1500, rel=1e-12)
    noise = (sample.data - sample.codes @ truth.T).std().item()
    assert 0.95 * noise < found.noise_std < 1.7 * noise  # errors of the spans count as noise, which is weak here
    responses = np.stack([np.linalg.norm(data.cpu().numpy() @ b, axis=1) for b in blocks_of(found.dictionary, 2)], 1)
    active = sample.support.numpy()[:, angles.argmin(axis=0)]
    assert (responses[active] > found.penalty).mean() > 0.9
    assert ((responses > found.penalty) & ~active).sum() < 0.1 * len(data)


@pytest.mark.parametrize("sizes", [(60, 30, 1, 2, 900), (90, 20, 3, 2, 800)], ids=["lines", "three dimensions"])
def test_finds_groups_of_other_sizes(sizes, rng, dtype):
    """Fails if a line is grown to a plane, or a span of more than two dimensions is not filled."""
    truth, sample = planted(rng, *sizes, dtype=dtype)
    _, n_groups, group_size, _, _ = sizes
    found = find_groups(sample.data, n_groups, group_size, generator=rng)
    assert_sane(found, n_groups)
    assert share_found(found.dictionary, truth, group_size) == 1
    assert found.n_active == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("asked", [{"max_tries": 1500}, {"n_groups": 30, "group_size": 2}], ids=str)
def test_finds_how_many_groups_there_are(asked, rng):
    """Fails if missing groups are made up, by noise or by copies, or too few are found; the size is estimated too."""
    truth, sample = planted(rng, 100, 20, 2, 2, 600)
    found = find_groups(sample.data, **asked, generator=rng)
    assert found.group_size == 2 and 20 <= found.n_groups <= 21
    assert share_found(found.dictionary, truth, 2) == 1


def test_gathered_and_multiplied_samples_give_the_same_groups(rng, monkeypatch):
    """Fails if either way of a fit drops an active sample, takes another, or mixes up spans when packs are put back."""
    truth = orthonormal_groups_dictionary(100, 20, 2, generator=rng, dtype=torch.float64)
    data = GroupSparseSource(truth, 2, 2, snr_db=20.0).sample(1500, generator=rng).data
    found = []
    for few in (0.0, 1.0):
        monkeypatch.setattr(pairwise, "FEW", few)
        found.append(find_groups(data, 20, 2, generator=torch.Generator().manual_seed(0)))
    assert found[0].n_groups == 20 and found[0].n_samples.equal(found[1].n_samples)
    projectors = [one.dictionary.T.unflatten(0, (20, 2)).mT for one in found]
    first, second = (one @ one.mT for one in projectors)
    torch.testing.assert_close(first, second, rtol=0, atol=1e-9)


def test_fewer_groups_are_the_most_used_found(rng):
    """Fails if as many as asked are not returned, or if the first ones are, not the most used."""
    truth = gaussian_dictionary(100, 30, 2, generator=rng)
    chances = torch.ones(1500, 30)
    chances[:, ::3] = 5.0
    support = torch.zeros(1500, 30).scatter_(1, torch.multinomial(chances, 2, generator=rng), 1.0)
    codes = torch.nn.functional.normalize(torch.randn(1500, 30, 2, generator=rng), dim=2) * 4.5 * support.unsqueeze(2)
    data = codes.flatten(1) @ truth.T + 0.05 * torch.randn(1500, 100, generator=rng)
    found = find_groups(data, 10, 2, generator=rng)
    assert found.n_groups == 10 and (found.n_samples.diff() <= 0).all()
    angles = largest_angles(found.dictionary, truth, 2)
    assert (angles.min(axis=0) < 15).all()
    assert (angles.argmin(axis=0) % 3 == 0).mean() >= 0.9


def test_white_noise_has_hardly_any_planes(rng):
    """Fails if spans of noise keep their samples, as they do when a sample responds to its own part in a fit."""
    data = torch.randn(3000, 60, generator=rng)
    found = find_groups(data, 50, 2, generator=rng)
    assert_sane(found)
    assert found.n_groups <= 2 and found.n_active < 0.02
    assert found.noise_std == pytest.approx(1.0, rel=0.02)


def test_true_groups_come_back_from_halves_and_noise_does_not(rng):
    """Fails if halves share samples, angles are to some other group than the nearest, or noise repeats itself."""
    _, sample = planted(rng, 80, 20, 2, 2, 1000)
    data = sample.data
    found = find_groups(data, 20, 2, generator=rng)
    angles = np.degrees(repeat_on_halves(data, found, generator=generator(5)).numpy())
    assert angles.shape == (found.n_groups, 2)
    assert (angles < 15).mean() > 0.95
    draw = generator(5)  # the first half is drawn and searched here
    half = find_groups(data[torch.randperm(1000, generator=draw)[:500]], found.n_groups, 2, generator=draw)
    nearest = largest_angles(half.dictionary, found.dictionary, 2).min(axis=1)
    np.testing.assert_allclose(angles[:, 0][nearest < 45], nearest[nearest < 45], atol=0.1)
    noise = torch.randn(700, 80, generator=rng)
    chance = find_groups(noise, 50, 1, generator=rng)
    assert chance.n_groups > 5  # or there would be nothing to tell apart
    assert (np.degrees(repeat_on_halves(noise, chance, generator=rng).numpy()) > 45).mean() > 0.9
    nothing = find_groups(torch.zeros(40, 20), 5, 2, generator=rng)
    assert repeat_on_halves(torch.zeros(40, 20), nothing, generator=rng).shape == (0, 2)
    with pytest.raises(ValueError, match="data"):
        repeat_on_halves(noise[:, :50], found, generator=rng)


def test_noise_is_estimated(rng):
    """Fails if the residual is not divided by the share of it that codes and spans leave, which is 0.88 here."""
    truth = gaussian_dictionary(100, 20, 2, generator=rng)
    sample = GroupSparseSource(truth, 2, 2, norm_range=(4.0, 5.0), snr_db=5.0).sample(500, generator=rng)
    found = find_groups(sample.data, 20, 2, generator=rng)
    noise = (sample.data - sample.codes @ truth.T).std().item()
    # Errors of the spans count as noise. Without the share of codes, 2 * 2 / 100, it would be less than there is.
    assert found.n_groups == 20 and 1.005 < found.noise_std / noise < 1.03


@pytest.mark.parametrize("group_size", [1, 2, 3])
def test_estimated_group_size(group_size, rng):
    """Fails if the gap is read one place too early or too late, or depends on how many groups are named."""
    _, sample = planted(rng, 150, 50, group_size, 3, 2000, dtype=torch.float64)
    assert estimate_group_size(sample.data, 50, generator=generator()) == group_size
    assert estimate_group_size(sample.data, generator=generator()) == group_size


# Repetition, units


def small(seed=3, dtype=torch.float64):
    """Quick to search."""
    truth = orthonormal_groups_dictionary(40, 8, 2, generator=generator(seed), dtype=dtype)
    return GroupSparseSource.union_of_subspaces(truth, 2, snr_db=25.0).sample(500, generator=generator(seed)).data


@pytest.mark.parametrize("exponent", [-400, -20, 0, 20, 400])
def test_repeats_in_any_unit(exponent):
    """Fails if a draw is from global state, or a number of one unit is compared with one of another, or overflows."""
    data = small()
    first = find_groups(data, 8, 2, generator=generator())
    torch.manual_seed(exponent)
    again = find_groups(data * 2.0**exponent, 8, 2, generator=generator())
    assert first.n_groups == 8
    for name in ("dictionary", "n_samples", "scores", "anisotropy"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert (first.n_active, first.n_tries) == (again.n_active, again.n_tries)
    assert again.noise_std == 2.0**exponent * first.noise_std > 0
    assert again.penalty == 2.0**exponent * first.penalty > 0
    assert estimate_group_size(data * 2.0**exponent, 8, generator=generator()) == 2
    assert not torch.equal(find_groups(data, 8, 2, generator=generator(1)).dictionary, first.dictionary)


@pytest.mark.parametrize("max_tries", [1, 64, 65, 200])
def test_max_tries(max_tries, rng, capsys):
    """Fails if a search goes on beyond its limit, in whole batches, or beyond the last search; progress is as asked."""
    _, sample = planted(rng, n_samples=300)
    found = find_groups(sample.data, 50, 2, max_tries=max_tries, generator=rng)
    assert 0 < found.n_tries <= -(-max_tries // BATCH) * BATCH + LAST
    assert "".join(capsys.readouterr()) == ""
    easy = find_groups(small(), 8, 2, max_tries=max_tries, generator=rng, progress=True)
    assert easy.n_tries == BATCH and "8/8" in capsys.readouterr().err


# Odd data


def samples_of_few_rows(rng):
    """4,100 samples, of which only some of those that a median of every second looks past are not zero."""
    data = torch.zeros(4100, 30)
    for g in range(6):
        data[1 + 40 * g : 41 + 40 * g : 2] = 5 * torch.randn(20, 2, generator=rng) @ torch.randn(2, 30, generator=rng)
    return data


ODD = {
    "zero": lambda g: torch.zeros(50, 10),
    "two zero samples": lambda g: torch.zeros(2, 10),
    "two": lambda g: torch.randn(2, 10, generator=g),
    "twice the same": lambda g: torch.randn(1, 10, generator=g).repeat(2, 1),
    "fewer than a group": lambda g: torch.randn(3, 10, generator=g),
    "one, repeated": lambda g: torch.randn(1, 10, generator=g).repeat(100, 1),
    "five, repeated": lambda g: torch.randn(5, 20, generator=g).repeat(20, 1),
    "constant": lambda g: torch.ones(80, 10),
    "one of fifty": lambda g: torch.eye(50, 10)[[0] + 49 * [20]],
    "as many features as a group": lambda g: torch.randn(60, 5, generator=g),
    "a common offset": lambda g: torch.randn(200, 20, generator=g) + 100,
    "rank one": lambda g: torch.randn(200, 1, generator=g) @ torch.randn(1, 20, generator=g),
    "rank two": lambda g: torch.randn(200, 2, generator=g) @ torch.randn(2, 20, generator=g),
    "axes": lambda g: torch.eye(20).repeat(10, 1),
    "noise-free planes": lambda g: torch.cat(
        [torch.randn(60, 2, generator=g) @ torch.randn(2, 30, generator=g) for _ in range(5)]
    ),
    "many zero samples": samples_of_few_rows,
    "an outlier": lambda g: torch.cat([torch.full((1, 20), 1e30), torch.randn(100, 20, generator=g)]),
    "the largest numbers": lambda g: torch.full((60, 10), torch.finfo(torch.float32).max),
    "the smallest numbers": lambda g: 1e-44 * torch.randn(60, 10, generator=g),
    "columns in memory": lambda g: torch.randn(10, 60, generator=g).T,
    "a gradient": lambda g: torch.randn(60, 10, generator=g).requires_grad_(),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_data_do_no_harm(name, rng):
    """Fails if a search crashes, gives nan, changes the data, or returns more groups than asked."""
    data = ODD[name](rng)
    before = data.clone()
    for n_groups, group_size in itertools.product((3, None), (1, 2, 5)):
        assert_sane(find_groups(data, n_groups, group_size, max_tries=64, generator=rng), n_groups)
    assert 1 <= estimate_group_size(data, generator=rng) <= 16
    assert torch.equal(data, before)


# Anisotropy


def test_anisotropy_of_planes_is_the_fourth_harmonic(rng, dtype):
    """Fails if the moment is not of the fourth order, or lengths of codes enter."""
    for spread in (0.1, 0.5, 3.0):
        angles = spread * torch.randn(400, generator=rng, dtype=torch.float64)
        codes = torch.stack([angles.cos(), angles.sin()], dim=1)
        lengths = torch.rand(400, 1, generator=rng, dtype=torch.float64) + 0.5
        expected = 1 + abs(np.exp(4j * angles.numpy()).mean())
        assert code_anisotropy((lengths * codes).to(dtype))[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("group_size", [2, 3, 4])
def test_anisotropy_limits(group_size):
    """Fails if the eigenvalues are scaled otherwise: uniform codes give 1, codes on axes (d + 2) / 2, one line D."""
    design = spherical_design(group_size).double()
    assert code_anisotropy(design)[0] == pytest.approx(1.0, abs=1e-6)
    axes = torch.cat([torch.eye(group_size), -3 * torch.eye(group_size)]).double()
    assert code_anisotropy(axes)[0] == pytest.approx((group_size + 2) / 2)
    dimension = group_size * (group_size + 1) / 2 - 1
    anisotropy, matrix = code_anisotropy(torch.ones(7, group_size, dtype=torch.float64))
    assert anisotropy == pytest.approx(dimension)
    signs, vectors = torch.linalg.eigh(matrix * matrix.sum().sign())
    assert (signs > 1e-9).sum() == 1 and vectors[:, -1].abs().allclose(vectors.new_tensor(group_size**-0.5))


def test_anisotropy_of_nothing():
    """Fails if one direction, no sample or zero codes give nan."""
    for codes in (torch.randn(5, 1, generator=generator()), torch.zeros(4, 3), torch.zeros(0, 2)):
        anisotropy, axes = code_anisotropy(codes)
        assert anisotropy == 1.0 and torch.equal(axes, torch.zeros(codes.shape[1], codes.shape[1]))


# Parts of the search


@pytest.mark.parametrize("group_size", [1, 2, 3])
def test_active_samples_do_not_respond_to_themselves(group_size, rng, monkeypatch):
    """Fails if a sample's own term stays in the span it responds to: the oracle sums one power step without it."""
    monkeypatch.setattr(pairwise, "POWER_STEPS", 1)
    data = torch.randn(60, 20, generator=rng, dtype=torch.float64)
    active = torch.zeros(3, 60, dtype=torch.bool)
    for row, rows in enumerate((range(30), range(7, 50), range(20, 60))):
        active[row, list(rows)] = True
    starts = np.linalg.qr(torch.randn(3, 20, group_size, generator=rng, dtype=torch.float64).numpy())[0]
    search = pairwise._Search(data, group_size, 3, rng)
    spans, responses, full = search.fit(torch.from_numpy(starts), active)
    assert full.all()
    y, unit = data.numpy(), search.unit
    for b, start in enumerate(starts):
        rows, w = active[b].numpy(), spans[b].numpy()
        q, triangle = np.linalg.qr(y[rows].T @ (y[rows] @ start))
        signs = np.sign(np.diag(w.T @ q))
        for i in range(60):
            others = rows & (np.arange(60) != i)
            without = y[others].T @ (y[others] @ start) @ np.linalg.inv(triangle) * signs if rows[i] else w
            np.testing.assert_allclose(responses[b, :, i], without.T @ y[i] / unit, rtol=0, atol=1e-12)


def test_spans_that_no_sample_uses_are_dropped(rng):
    """Fails if a fit needs a sample that uses some span: the only one is orthogonal to all samples."""
    data = torch.nn.functional.pad(small(), (0, 2))
    search = pairwise._Search(data, 2, 8, rng)
    search.spans = torch.eye(42, dtype=torch.float64)[None, :, 40:]
    search.fit_together()
    assert len(search.spans) == len(search.counts) == len(search.codes.sample) == 0
    assert torch.equal(search.left, search.data)
    assert search.result().n_groups == 0


def test_a_mixed_span_is_split(rng):
    """Fails if a plane of one direction of each of two groups is kept, or a pure one is dropped."""
    truth, sample = planted(rng, n_active=1, dtype=torch.float64)
    bases = [np.linalg.qr(block)[0] for block in blocks_of(truth, 2)]
    mixed = np.linalg.qr(np.stack([bases[0][:, 0], bases[1][:, 0]], axis=1))[0]
    search = pairwise._Search(sample.data, 2, 50, rng)
    search.spans = torch.from_numpy(np.stack([mixed, *bases[2:]]))
    search.fit_together()
    assert len(search.spans) == 49
    suspects, n_split = search.split_mixed()
    assert suspects.nonzero().flatten().tolist() == [0] and n_split == 1
    assert share_found(torch.cat(tuple(search.spans), dim=1), truth, 2) == 1


# Starts and learners


def test_start_fills_missing_groups_and_says_so(rng):
    """Fails if groups are missing without a word, the found ones are not first, or the warning counts wrongly."""
    data = small()
    start = initial_dictionary(data, 8, 2, "pairs", generator=generator())
    found = find_groups(data, 8, 2, generator=generator())
    assert torch.equal(start, found.dictionary)
    far = torch.randn(200, 20, generator=rng) + 100  # one direction in all samples
    with pytest.warns(GroupsMissingWarning, match="found 0 of 5 groups in 200 samples; the last 5 are "):
        start = initial_dictionary(far, 5, 2, "pairs", generator=generator())
    assert start.shape == (20, 10)
    assert_orthonormal(start, 2)
    with pytest.warns(GroupsMissingWarning, match="found 8 of 12 groups in 500 samples; the last 4 "):
        start = initial_dictionary(data, 12, 2, "pairs", generator=generator())
    assert_orthonormal(start, 2)
    assert share_found(start[:, :16], found.dictionary, 2) == 1


@pytest.mark.parametrize("estimator", [GroupSparseDictionaryLearning, GroupSparseClustering])
def test_learners_recover_a_dictionary_from_pairs(estimator, rng):
    """Fails if the start does not reach training, or training leaves it, with three active groups in a sample."""
    truth, sample = planted(rng, n_active=3)
    settings = {"n_groups": 50, "group_size": 2, "alpha": 2.0, "max_iter": 3, "random_state": 0}
    shares = {}
    for init in ("pairs", "k-subspaces"):
        model = estimator(init=init, **settings).fit(sample.data.numpy())
        shares[init] = share_found(torch.from_numpy(model.components_.T), truth, 2)
    assert shares["pairs"] == 1 and shares["k-subspaces"] < 0.9
