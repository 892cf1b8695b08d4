"""How much is left after each step."""

import pytest

from secateur import LabelError
from secateur.iterative import shares_left


def test_linear_steps_are_equal():
    assert shares_left(0.2, 4, "linear") == pytest.approx([0.8, 0.6, 0.4, 0.2])


def test_cubic_steps_follow_the_formula():
    expected = [0.1 + 0.9 * (1 - t / 5) ** 3 for t in range(1, 6)]
    assert shares_left(0.1, 5) == pytest.approx(expected)
    assert shares_left(0.1, 5)[-1] == 0.1


def test_one_step_goes_all_the_way():
    assert shares_left(0.3, 1, "linear") == shares_left(0.3, 1, "cubic") == [0.3]


@pytest.mark.parametrize(
    ("target", "steps", "schedule", "message"),
    [
        (0.0, 3, "linear", "above 0 and at most 1, got 0.0"),
        (1.5, 3, "linear", "above 0 and at most 1, got 1.5"),
        (0.5, 0, "linear", "whole number from 1 on, got 0"),
        (0.5, 2.0, "linear", "whole number from 1 on, got 2.0"),
        (0.5, 3, "square", "one of .*linear.*cubic.*got 'square'"),
    ],
)
def test_what_makes_no_sense_is_refused(target, steps, schedule, message):
    with pytest.raises(LabelError, match=message):
        shares_left(target, steps, schedule)
