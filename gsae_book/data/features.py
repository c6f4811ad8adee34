r"""Features of images: pixels and scattering coefficients, as scikit-learn transformers.

Both learn from the images given to `fit` alone and then treat each image on its own. They take `Images`, or an array or
a tensor (samples, height, width), and return a float32 array (samples, features).
"""

import hashlib
import logging
import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from tqdm import tqdm

from gsae_book.data.files import cache_folder
from gsae_book.data.images import Images
from gsae_lib._checks import check_int, check_mask, describe
from gsae_lib._extras import require

logger = logging.getLogger(__name__)

ImageArray = Images | Float[np.ndarray, "samples height width"] | Float[Tensor, "samples height width"]
Features = Float32[np.ndarray, "samples features"]

# The fastest on one core (5,000 digits: 11 s, 19 s by 16 at a time); its temporaries take about 50 MB.
_BATCH_SIZE = 250


class PixelFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    r"""The pixels of an image, row by row.

    .. math:: z = (y - m) / \|y - m\|_2, \qquad m = \text{mean of the training images}

    Shape (samples, height * width). Without `center`, m = 0; without `unit_norm`, no division. An image equal to m
    gives zeros.

    Raises:
        ValueError: not finite images, or in `transform` not of the shape of the training images.
    """

    def __init__(self, center: bool = True, unit_norm: bool = True) -> None:
        self.center = center
        self.unit_norm = unit_norm

    def fit(self, X: ImageArray, y: object = None) -> "PixelFeatures":
        """Learn the mean image."""
        images = _check_images(X)
        self.image_shape_ = tuple(images.shape[1:])
        self.mean_ = images.flatten(1).mean(dim=0).numpy()
        return self

    def transform(self, X: ImageArray) -> Features:
        """The features of each image."""
        check_is_fitted(self)
        pixels = _check_images(X, self.image_shape_).flatten(1).numpy()
        pixels = pixels - self.mean_ if self.center else pixels.copy()
        return _unit_rows(pixels) if self.unit_norm else pixels

    @property
    def _n_features_out(self) -> int:
        return len(self.mean_)


class ScatteringFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    r"""Scattering coefficients s (see `scattering_coefficients`), reduced by principal components.

    .. math:: z = V^T (s - m) / \|V^T (s - m)\|_2

    m is the mean and V, with orthonormal columns, the first `n_components` principal directions of the training
    images' coefficients: centred, not whitened. Without `unit_norm`, no division. Shape (samples, n_components).
    With `root`, s is replaced by its square root, entry by entry: coefficients are non-negative averages of moduli,
    and the root keeps the few large ones from drowning the others.

    The principal components come from a randomised method with a fixed seed, several times faster than the exact ones
    here and as good to three digits of the variance.

    Args:
        cache: the folder for the coefficients, by default `cache_folder()`.

    Raises:
        ValueError: not finite images; `max_scale` or `n_angles` (see `scattering_coefficients`), or `n_components`
            beyond the number of training images or of coefficients; in `transform`, images of another shape.
    """

    def __init__(
        self,
        n_components: int = 500,
        max_scale: int = 3,
        n_angles: int = 8,
        root: bool = False,
        unit_norm: bool = True,
        cache: str | Path | None = None,
    ) -> None:
        self.n_components = n_components
        self.max_scale = max_scale
        self.n_angles = n_angles
        self.root = root
        self.unit_norm = unit_norm
        self.cache = cache

    def fit(self, X: ImageArray, y: object = None) -> "ScatteringFeatures":
        """Learn the mean and the principal directions of the coefficients."""
        images = _check_images(X)
        coefficients = self._coefficients(images)
        check_int("n_components", self.n_components, high=min(coefficients.shape))
        self.image_shape_ = tuple(images.shape[1:])
        self.pca_ = PCA(self.n_components, svd_solver="randomized", random_state=0).fit(coefficients)
        return self

    def transform(self, X: ImageArray) -> Features:
        """The features of each image."""
        check_is_fitted(self)
        coefficients = self._coefficients(_check_images(X, self.image_shape_))
        reduced = self.pca_.transform(coefficients)
        return _unit_rows(reduced) if self.unit_norm else reduced

    @property
    def _n_features_out(self) -> int:
        return self.pca_.n_components_

    def _coefficients(self, images: Tensor) -> np.ndarray:
        coefficients = scattering_coefficients(images, self.max_scale, self.n_angles, cache=self.cache)
        if self.root:
            coefficients = coefficients.clamp(min=0).sqrt()  # rounding leaves a few below 0
        return coefficients.numpy()


def scattering_coefficients(
    images: ImageArray, max_scale: int = 3, n_angles: int = 8, *, cache: str | Path | None = None
) -> Float32[Tensor, "samples coefficients"]:
    r"""Scattering coefficients: local averages of an image and of the moduli of its wavelet transforms.

    .. math:: y * \phi_J, \quad |y * \psi_{j,l}| * \phi_J, \quad ||y * \psi_{j,l}| * \psi_{j',l'}| * \phi_J, \; j < j'

    with Morlet wavelets psi at scales 2^j, j = 0, ..., J - 1, and L angles, and phi a Gaussian of width about 2^J
    pixels, sampled every 2^J pixels: J is `max_scale`, L `n_angles`. They change little when an image is shifted by
    much less than 2^J, or slightly deformed.

    Images are padded with zeros, evenly, until each side is a multiple of 2^J (28 becomes 32). The result has shape
    (samples, (1 + J L + L^2 J (J - 1) / 2) * height * width / 4^J), in the units of the pixels: 217 * 16 = 3472 for 28
    x 28 pixels, J = 3, L = 8. It is kept on disk, in `cache` / "features" (14 KB an image), under a key of the images'
    bytes and the settings; a damaged file is computed again.

    Source: Mallat, Group invariant scattering, 2012; Bruna and Mallat, Invariant scattering convolution networks, 2013;
    computed by kymatio (Andreux et al. 2020).

    Raises:
        ValueError: not finite images, max_scale not an integer from 1 with 2^max_scale at most the shorter side, or
            n_angles not an integer >= 1.
    """
    images = _check_images(images)
    check_int("max_scale", max_scale, high=min(images.shape[1:]).bit_length() - 1)
    check_int("n_angles", n_angles)
    digest = hashlib.sha256(f"{require('kymatio', 'data')} {max_scale} {n_angles} {tuple(images.shape)}".encode())
    digest.update(images.numpy().data)
    folder = (cache_folder() if cache is None else Path(cache)) / "features"
    path = folder / f"scattering-{digest.hexdigest()[:32]}.npz"
    coefficients = _read_kept(path)
    sides = math.prod(-(-side // 2**max_scale) for side in images.shape[1:])
    width = (1 + max_scale * n_angles + n_angles**2 * max_scale * (max_scale - 1) // 2) * sides
    if coefficients is None or coefficients.shape != (len(images), width) or coefficients.dtype != torch.float32:
        coefficients = _scatter(images, max_scale, n_angles)
        _keep(path, coefficients)
    return coefficients


def _scatter(images: Tensor, max_scale: int, n_angles: int) -> Tensor:
    height, width = (-side % 2**max_scale for side in images.shape[1:])
    padded = torch.nn.functional.pad(images, (width // 2, width - width // 2, height // 2, height - height // 2))
    scattering = _scattering_class()(J=max_scale, shape=tuple(padded.shape[1:]), L=n_angles)
    batches = tqdm(padded.split(_BATCH_SIZE), "scattering", unit="batch", leave=False)
    with torch.inference_mode():
        coefficients = torch.cat([scattering(batch).flatten(1) for batch in batches])
    return coefficients


def _scattering_class() -> type:
    """kymatio's class. Version 0.3 imports a name for its three-dimensional part that SciPy 1.17 has no more.

    The name exists during the import alone; another thread could see it then.
    """
    import scipy.special

    missing = not hasattr(scipy.special, "sph_harm")
    if missing:
        scipy.special.sph_harm = lambda m, n, theta, phi: scipy.special.sph_harm_y(n, m, phi, theta)
    try:
        from kymatio.torch import Scattering2D
    finally:
        if missing:
            del scipy.special.sph_harm
    return Scattering2D


def _read_kept(path: Path) -> Tensor | None:
    """The tensor kept at `path`, or None where there is none, or where it does not have the checksum in the file."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as kept:
            return torch.from_numpy(kept["coefficients"])
    except Exception as error:  # whatever a damaged archive, or a header that asks for terabytes, leads to
        logger.warning("%s: damaged, it is computed again: %s", path, error)
        return None


def _keep(path: Path, tensor: Tensor) -> None:
    """Write aside, then move into place, so that another run never reads half a file. A zip has checksums (CRC-32)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as aside:
        np.savez(Path(aside) / path.name, coefficients=tensor.numpy())
        (Path(aside) / path.name).replace(path)


def _check_images(images: ImageArray, shape: tuple[int, ...] | None = None) -> Tensor:
    """The images as a float32 tensor on the CPU."""
    tensor = images.images if isinstance(images, Images) else images
    check_mask("images", tensor)
    if isinstance(tensor, np.ndarray) and np.issubdtype(tensor.dtype, np.floating):
        tensor = torch.from_numpy(tensor.astype(np.float32, order="C"))
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.ndim != 3 or tensor.numel() == 0:
        expected = "expected floating-point numbers (samples, height, width)"
        raise ValueError(f"images: {expected}, got {describe(tensor)}")
    if shape is not None and tuple(tensor.shape[1:]) != shape:
        raise ValueError(f"images: expected {shape} pixels as in training, got {describe(tensor)}")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"images: has non-finite entries ({describe(tensor)})")
    return tensor.detach().to("cpu", torch.float32).contiguous()


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    norms = torch.linalg.vector_norm(torch.from_numpy(rows), dim=1, keepdim=True).numpy()
    return rows / np.where(norms > 0, norms, 1)
