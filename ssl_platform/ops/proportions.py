"""How sure the difference of two accuracies is."""

import math


def two_standard_errors(first: float, second: float, num_samples: float) -> float:
    """Twice the binomial standard error of the difference of two shares of ``num_samples`` each.

    That is ``2 sqrt(p (1 - p) / n + q (1 - q) / n)``. A share of none or of all is not known to be
    exactly that: it counts as 1 or n + 1 of n + 2 (Laplace's rule of succession), for an error of 0
    would make a proof of a single sample.

    Args:
        first, second: p and q, from 0 to 1.
        num_samples: n, at least 1.
    """
    least = 1 / (num_samples + 2)
    shares = [min(max(share, least), 1 - least) for share in (first, second)]
    return 2 * math.sqrt(sum(share * (1 - share) / num_samples for share in shares))
