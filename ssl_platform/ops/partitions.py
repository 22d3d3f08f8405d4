"""How alike two partitions of the same samples are: clusters and clusters, clusters and classes.

Every function takes two (N,) integer arrays. A negative number on either side means that the sample
has none there (unlabelled, ignored); such samples are left out, and when no sample is left the
result is NaN. What the other numbers are does not matter, nor whether they are consecutive.
"""

import numpy as np


def normalized_mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Mutual information over the arithmetic mean of both entropies: 0 (independent) to 1 (equal).

    2 I(A, B) / (H(A) + H(B)), "NMI_sum" of Vinh, Epps and Bailey, JMLR 11 (2010), table 2;
    scikit-learn's default. Not adjusted for chance: many small clusters raise it.

    Raises:
        ValueError: different lengths.
    """
    from sklearn.metrics import normalized_mutual_info_score

    a, b = _in_both(a, b)
    return float(normalized_mutual_info_score(a, b)) if len(a) else float("nan")


def adjusted_rand_index(a: np.ndarray, b: np.ndarray) -> float:
    """Agreement over pairs of samples, adjusted for chance: 0 as by chance, 1 equal, down to -0.5.

    Hubert and Arabie, "Comparing partitions", Journal of Classification 2 (1985), equation 5.

    Raises:
        ValueError: different lengths.
    """
    from sklearn.metrics import adjusted_rand_score

    a, b = _in_both(a, b)
    return float(adjusted_rand_score(a, b)) if len(a) else float("nan")


def purity(clusters: np.ndarray, classes: np.ndarray) -> float:
    """Part of the samples that belong to the commonest class of their cluster: above 0, up to 1.

    Manning, Raghavan and Schuetze, "Introduction to Information Retrieval", section 16.3. More
    clusters raise it: with a cluster for each sample it is 1.

    Raises:
        ValueError: different lengths.
    """
    from sklearn.metrics.cluster import contingency_matrix

    clusters, classes = _in_both(clusters, classes)
    if not len(clusters):
        return float("nan")
    table = contingency_matrix(classes, clusters, sparse=True)
    return float(table.max(axis=0).sum() / len(clusters))


def hungarian_accuracy(clusters: np.ndarray, classes: np.ndarray) -> float:
    """Accuracy when each cluster stands for one class, and each class for one cluster, at best.

    "ACC" of Xie, Girshick and Farhadi, arXiv:1511.06335. With K clusters for C < K classes the
    samples of K - C clusters count as wrong.

    Raises:
        ValueError: different lengths.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics.cluster import contingency_matrix

    clusters, classes = _in_both(clusters, classes)
    if not len(clusters):
        return float("nan")
    table = contingency_matrix(classes, clusters)
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / len(clusters))


def commonest_classes(
    clusters: np.ndarray, classes: np.ndarray, num_clusters: int, *, most: int
) -> list[list[tuple[int, int]]]:
    """The commonest classes of each cluster, with their numbers of samples, the commonest first.

    Args:
        most: classes of a cluster; of equally common ones the lowest come first.

    Returns:
        For each cluster at most so many pairs of class and number; none without labelled samples.

    Raises:
        ValueError: different lengths.
    """
    from scipy.sparse import coo_array

    clusters, classes = _in_both(clusters, classes)
    # classes are numbered anew: a large number among them would be a row of a large table
    known, classes = np.unique(classes, return_inverse=True)
    ones, shape = np.ones(len(clusters), np.int64), (num_clusters, max(1, len(known)))
    table = coo_array((ones, (clusters, classes)), shape).tocsr()
    table.sort_indices()
    pairs = []
    for start, end in zip(table.indptr, table.indptr[1:], strict=False):
        counts, columns = table.data[start:end], table.indices[start:end]
        best = np.argsort(-counts, kind="stable")[:most]
        pairs.append([(int(known[columns[place]]), int(counts[place])) for place in best])
    return pairs


def _in_both(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"partitions of shape {a.shape} and {b.shape}: must be of one length (N,)")
    both = (a >= 0) & (b >= 0)
    return a[both], b[both]
