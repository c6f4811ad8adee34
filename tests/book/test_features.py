"""Features: what they are, that they learn from the training images alone, and that the cache changes nothing."""

import logging
import struct
import zipfile

import numpy as np
import pytest
import scipy.special
import torch
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from gsae_book.data import features
from gsae_book.data.features import PixelFeatures, ScatteringFeatures, scattering_coefficients
from gsae_book.data.images import load_images

SMALL = {"max_scale": 2, "n_angles": 4}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def train():
    return load_images("digits").images[:300]


@pytest.fixture(scope="module")
def test():
    return load_images("digits", "test").images[:60]


@pytest.fixture
def transformers(cache):
    return [PixelFeatures(), ScatteringFeatures(n_components=20, cache=cache, **SMALL)]


def test_pixels_are_centred_and_scaled(train, test):
    """Broken by a mean over the wrong axis or images, or by scaling before centring; numpy is the oracle."""
    got = PixelFeatures().fit(train).transform(test)
    expected = test.numpy().reshape(60, 64) - train.numpy().reshape(300, 64).mean(axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    plain = PixelFeatures(center=False, unit_norm=False).fit(train).transform(test)
    np.testing.assert_array_equal(plain, test.numpy().reshape(60, 64))
    plain[:] = -1  # a copy
    assert (test >= 0).all()


def test_features_have_unit_norm_and_an_average_image_gives_zeros(transformers, train, test):
    """Broken by a missing or wrong division, or NaN for a zero row."""
    for transformer in transformers:
        codes = transformer.fit(train).transform(test)
        assert isinstance(codes, np.ndarray) and codes.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1, rtol=1e-6)
    constant = torch.full((3, 8, 8), 0.5)
    np.testing.assert_array_equal(PixelFeatures().fit_transform(constant), np.zeros((3, 64)))


def test_arrays_tensors_and_images_are_the_same(transformers):
    """Broken by an input that is read in another order or precision, or by labels that are looked at."""
    data = load_images("digits")
    views = (data, data.images, data.images.numpy(), np.asfortranarray(data.images.double().numpy()))
    for transformer in transformers:
        first, *others = (clone(transformer).fit_transform(view) for view in views)
        assert first.dtype == np.float32
        for other in others:
            np.testing.assert_array_equal(other, first, strict=True)


def test_an_image_is_treated_on_its_own(transformers, train, test):
    """Broken by statistics taken from the images to transform: other neighbours would then change an image's code."""
    for transformer in transformers:
        transformer.fit(train)
        alone, among_others = transformer.transform(test[:5]), transformer.transform(torch.cat([test[:5], 1 - test]))
        np.testing.assert_allclose(among_others[:5], alone, rtol=0, atol=1e-6)


def test_a_constant_image_has_an_average_and_no_oscillation(cache):
    """Broken by another order of the coefficients, wavelets with a mean, or padding where none is needed.

    The tolerance is for kymatio's filters, scaled with 3.1415 for pi.
    """
    coefficients = scattering_coefficients(torch.full((1, 16, 16), 0.7), **SMALL, cache=cache).reshape(-1, 4 * 4)
    assert len(coefficients) == 1 + 2 * 4 + 4**2
    torch.testing.assert_close(coefficients[0], torch.full((16,), 0.7), rtol=0, atol=1e-4)
    torch.testing.assert_close(coefficients[1:], torch.zeros(24, 16), rtol=0, atol=1e-5)


def test_coefficients_are_those_of_another_backend(train, cache):
    """Broken by a batch lost, repeated or out of order (there are two), or by a name of kymatio's left in scipy."""
    before = hasattr(scipy.special, "sph_harm")
    features._scattering_class()  # makes kymatio importable
    assert hasattr(scipy.special, "sph_harm") == before
    from kymatio.numpy import Scattering2D

    assert len(train) > features._BATCH_SIZE
    expected = Scattering2D(J=2, shape=(8, 8), L=4)(train.numpy()).reshape(300, -1)
    got = scattering_coefficients(train, **SMALL, cache=cache).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_images_are_padded_evenly_with_zeros(cache):
    """Broken by padding one side only, or with anything but zeros."""
    image = load_images().images[:2]
    padded = torch.zeros(2, 32, 32)
    padded[:, 2:30, 2:30] = image
    got, expected = (scattering_coefficients(x, 3, 2, cache=cache) for x in (image, padded))
    assert got.shape == (2, (1 + 6 + 12) * 16)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("root", [False, True])
def test_the_principal_components_are_those_of_an_exact_decomposition(root, train, test, cache):
    """Broken by no centring, whitening, the wrong directions, a test mean, or a root of the wrong thing; numpy's SVD in
    float64 is the oracle.

    Inner products are compared, which neither signs nor rotations within equal variances change.
    """
    transformer = ScatteringFeatures(n_components=20, root=root, unit_norm=False, cache=cache, **SMALL).fit(train)
    raw, raw_test = (scattering_coefficients(x, **SMALL, cache=cache).double().numpy() for x in (train, test))
    if root:
        raw, raw_test = (np.sqrt(np.maximum(x, 0)) for x in (raw, raw_test))
    directions = np.linalg.svd(raw - raw.mean(axis=0), full_matrices=False)[2][:20]
    expected = (raw_test - raw.mean(axis=0)) @ directions.T
    got = transformer.transform(test).astype(float)
    scale = np.abs(expected @ expected.T).max()
    np.testing.assert_allclose(got @ got.T, expected @ expected.T, rtol=0, atol=1e-3 * scale)


def test_a_cached_result_is_the_computed_one_bit_for_bit(train, tmp_path, monkeypatch):
    """Broken by a cache that rounds, that is not used, or that confuses images or settings."""
    first = scattering_coefficients(train[:20], **SMALL, cache=tmp_path)
    changed = train[:20].clone()
    changed[0, 4, 4] += 0.01
    others = [
        scattering_coefficients(changed, **SMALL, cache=tmp_path),
        scattering_coefficients(train[:20].flip(0), **SMALL, cache=tmp_path),
        scattering_coefficients(train[:20], max_scale=2, n_angles=3, cache=tmp_path),
    ]
    assert not any(torch.equal(first, other) for other in others)
    monkeypatch.setattr(features, "_scatter", lambda *args: pytest.fail("computed again"))
    assert torch.equal(scattering_coefficients(train[:20], **SMALL, cache=tmp_path), first)


@pytest.mark.parametrize("damage", ["first byte", "a number", "the checksum", "truncated", "empty"])
def test_a_damaged_cache_is_computed_again(damage, train, tmp_path, caplog):
    """Broken by reading a file without its checksum: the codes would be wrong, or the run would stop."""
    first = scattering_coefficients(train[:20], **SMALL, cache=tmp_path)
    [path] = (tmp_path / "features").iterdir()
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as content:
        checksum = struct.pack("<I", content.infolist()[0].CRC)
    places = {"first byte": 0, "a number": len(whole) // 2, "the checksum": whole.rindex(checksum)}
    if damage in places:
        whole[places[damage]] ^= 1
    path.write_bytes({"truncated": whole[:-5], "empty": b""}.get(damage, whole))
    with caplog.at_level(logging.WARNING):
        assert torch.equal(scattering_coefficients(train[:20], **SMALL, cache=tmp_path), first)
    assert path.name in caplog.text
    caplog.clear()
    assert torch.equal(scattering_coefficients(train[:20], **SMALL, cache=tmp_path), first) and not caplog.text
    assert list((tmp_path / "features").iterdir()) == [path]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_scale": 4}, "max_scale=4: expected an integer from 1 to 3"),
        ({"max_scale": 1.5}, "max_scale=1.5: expected an integer"),
        ({"n_angles": 0}, "n_angles=0: expected an integer >= 1"),
        ({"n_components": 21}, "n_components=21: expected an integer from 1 to 20"),
        ({"n_components": True}, "n_components=True: expected an integer"),
    ],
)
def test_errors_name_the_parameter_its_value_and_what_is_allowed(settings, message, train, cache):
    """Broken by an error from inside kymatio or scikit-learn, after the work, instead of ours."""
    with pytest.raises(ValueError, match=message):
        ScatteringFeatures(**{**SMALL, "n_components": 5, "cache": cache, **settings}).fit(train[:20])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 64), r"images: .*\(3, 64\)"),
        (torch.zeros(0, 8, 8), r"images: .*\(0, 8, 8\)"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "images: .*uint8"),
        (torch.full((3, 8, 8), torch.nan), "images: has non-finite entries"),
        (np.zeros((3, 8, 8), dtype=int), r"images: .*\(3, 8, 8\) int64"),
        (np.zeros((3, 8, 8), dtype=object), r"images: .*\(3, 8, 8\) object"),
        ([[[0.0]]], "images: .*list"),
    ],
)
def test_what_is_not_images_is_refused(images, message, transformers):
    """Broken by codes made from flattened, integer, empty or non-finite images."""
    for transformer in transformers:
        with pytest.raises(ValueError, match=message):
            transformer.fit(images)


def test_they_transform_what_they_were_fitted_to(transformers, train):
    """Broken by a mismatch of shapes that is found only in a matrix product, or never."""
    for transformer in transformers:
        with pytest.raises(NotFittedError):
            transformer.transform(train)
        transformer.fit(train)
        with pytest.raises(ValueError, match=r"\(8, 8\).*\(2, 16, 4\)"):
            transformer.transform(torch.zeros(2, 16, 4))


def test_they_are_scikit_learn_transformers(transformers, train):
    """Broken by parameters that `clone` does not see, codes that no estimator takes, or too few names of columns."""
    for transformer in transformers:
        pipeline = make_pipeline(clone(transformer), KMeans(10, n_init=1, random_state=0))
        assert len(set(pipeline.fit_predict(train))) == 10
        frame = clone(transformer).set_output(transform="pandas").fit_transform(train)
        assert frame.shape == (len(train), 20 if "Scattering" in type(transformer).__name__ else 64)
        assert frame.columns[3] == type(transformer).__name__.lower() + "3"
