"""Tables of scores against counting by hand and trying all orders."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.digits.scores import accuracies, matched_confusion, mean_and_spread


def test_accuracies_keep_the_order_of_their_rows():
    """Fails if a tag is ignored, or rows are sorted."""
    rows = pd.DataFrame({"method": ["a", "b", "a"], "accuracy": [0.9, 0.1, 0.3]})
    assert accuracies(rows, method="a").tolist() == [0.9, 0.3]


def test_mean_and_spread_as_text():
    """Fails if the spread is not that of a sample, or is printed where runs agree or there is one."""
    rows = pd.DataFrame({"method": [*"aabbc"], "accuracy": [0.1, 0.3, 0.5, 0.5, 0.7]})
    text = mean_and_spread(rows.groupby("method")["accuracy"])
    assert text.to_dict() == {"a": "0.200 ± 0.141", "b": "0.500", "c": "0.700"}


@pytest.mark.parametrize("n_clusters", [3, 4, 5])
def test_matched_confusion_has_the_largest_diagonal(n_clusters):
    """Fails if another order of clusters has more samples on the diagonal, or a count moves to another pair."""
    rng = np.random.default_rng(n_clusters)
    labels, clusters = rng.integers(0, 4, 80), rng.integers(0, n_clusters, 80)
    table = matched_confusion(torch.from_numpy(labels), clusters)
    assert table.shape == (4, n_clusters)
    for label, cluster in itertools.product(range(4), range(n_clusters)):
        assert table.loc[label, cluster] == sum((labels == label) & (clusters == cluster))
    orders = itertools.permutations(range(max(4, n_clusters)), 4)
    counts = np.zeros((4, 5), dtype=int)
    np.add.at(counts, (labels, clusters), 1)
    assert np.trace(table) == max(counts[range(4), order].sum() for order in orders)
