"""F1 and AUC as functions of the items' weights, so that a bootstrap can weigh items by how often it drew them."""

from collections.abc import Sequence

import numpy as np

from mixtune.evaluate.benchmarks.form import Floats, Score


def f1_score(gold: list[list[str]], predicted: list[list[str]], names: Sequence[str]) -> Score:
    """Return macro F1 by item weights, over the labels that occur with weight in either.

    `gold` and `predicted` hold labels per item; none for an invalid answer.
    """
    from sklearn.preprocessing import MultiLabelBinarizer

    encoder = MultiLabelBinarizer(classes=list(names), sparse_output=True).fit([])
    truth, answers = encoder.transform(gold), encoder.transform(predicted)
    both = truth.multiply(answers).tocsr()

    def score(weights: Floats) -> float:
        right = both.T @ weights
        total = truth.T @ weights + answers.T @ weights
        occurring = total > 0
        return float((2 * right[occurring] / total[occurring]).mean())

    return score


def auc_score(gold: list[str], shares: Floats, names: Sequence[str]) -> Score:
    """Return the mean over labels of one-against-rest AUC, by item weights; ties count half.

    `gold` is the true label per item; `shares`, (items, labels), has the `names` as columns.
    """
    index = {name: number for number, name in enumerate(names)}
    truth = np.array([index[label] for label in gold])
    labels = [label for label in np.unique(truth) if (truth == label).sum() < len(truth)]
    # Per label: items by rising share, (num_items,); the places in that order of the items that have the label, and how
    # many items have a lower, or no higher, share than each of these, (num_hits,).
    sorts = []
    for label in labels:
        column = shares[:, label]
        order = np.argsort(column, kind="stable")
        ranked = column[order]
        hits = np.flatnonzero(truth[order] == label)
        below, upto = np.searchsorted(ranked, ranked[hits], "left"), np.searchsorted(ranked, ranked[hits], "right")
        sorts.append((order, hits, below, upto))

    def score(weights: Floats) -> float:
        # AUC is the share of pairs of a hit and another item, by the product of their weights, in which the hit ranks
        # higher; total[n], (num_items + 1,), is the weight of the other items among the first n.
        areas = []
        for order, hits, below, upto in sorts:
            ranked = weights[order]
            positive = ranked[hits]
            rest = ranked.copy()
            rest[hits] = 0
            total = np.concatenate([[0.0], np.cumsum(rest)])
            pairs = positive.sum() * total[-1]
            if pairs > 0:
                areas.append(float((positive * (total[below] + total[upto]) / 2).sum() / pairs))
        return float(np.mean(areas)) if areas else 0.5

    return score
