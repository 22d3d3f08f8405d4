import math

import pytest

from ssl_platform.ops.proportions import two_standard_errors


@pytest.mark.parametrize(
    ("first", "second", "num", "expected"),
    [
        (0.5, 0.5, 50, 0.2),
        (0.2, 0.8, 32, 0.2),
        (7 / 45, 6 / 45, 45, 2 * math.sqrt((7 * 38 + 6 * 39) / 45**3)),
        (1.0, 1.0, 45, 2 * math.sqrt(2 * 46 / 47**2 / 45)),
        (0.0, 1.0, 1, 2 * math.sqrt(4 / 9)),
    ],
)
def test_two_standard_errors_are_those_of_the_formula(first, second, num, expected):
    assert two_standard_errors(first, second, num) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("num", [1, 2, 5, 45, 1000, 10**6])
def test_one_sample_is_never_beyond_the_error(num):
    for count in range(min(num, 50)):
        first, second = count / num, (count + 1) / num
        for p, q in ((first, second), (1 - first, 1 - second)):
            assert abs(p - q) < two_standard_errors(p, q, num)
