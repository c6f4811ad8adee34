"""How sure the cluster of a sample is: how often it comes out the same, and how far the next one is."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import pairwise_distances
from sklearn.metrics.cluster import contingency_matrix


def confidences(labels: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """The share of other clusterings that agree with the label of each sample, (samples,); 1 without any.

    The clusters of each are matched with the labels so that most samples agree.
    """
    agree = np.zeros(len(labels))
    for found in others:
        counts = contingency_matrix(labels, found)
        kinds, clusters = np.unique(labels), np.unique(found)
        pairs = dict(zip(*(side.tolist() for side in linear_sum_assignment(counts, maximize=True)), strict=True))
        partner = np.array([clusters[pairs[k]] if k in pairs else -1 for k in range(len(kinds))])
        agree += partner[np.searchsorted(kinds, labels)] == found
    return agree / len(others) if len(others) else np.ones(len(labels))


def cluster_means(samples: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The clusters that samples are in, (clusters,), and the means of their samples, (clusters, features)."""
    kinds = np.unique(labels)
    return kinds, np.stack([samples[labels == kind].mean(axis=0) for kind in kinds])


def margins(samples: np.ndarray, labels: np.ndarray, kinds: np.ndarray, means: np.ndarray) -> np.ndarray:
    r"""How much farther the next cluster's mean is than that of the own one, as a share of the larger distance.

    .. math:: \frac{r_{\text{next}} - r_{\text{own}}}{\max(r_{\text{next}}, r_{\text{own}})}

    (samples,), negative where another mean is nearer, and 0 for one cluster. kinds, means: as `cluster_means` gives.
    """
    if len(kinds) < 2:
        return np.zeros(len(labels))
    distances, own = pairwise_distances(samples, means), kinds == labels[:, None]
    other = np.where(own, np.inf, distances).min(axis=1)
    nearest = np.where(own.any(axis=1), np.where(own, distances, np.inf).min(axis=1), other)  # a cluster without a mean
    largest = np.maximum(nearest, other)
    return np.where(largest > 0, (other - nearest) / np.where(largest > 0, largest, 1.0), 0.0)
