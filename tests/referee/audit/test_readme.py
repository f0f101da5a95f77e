"""Lists in a README beside the losses of logs: rounding is no accusation, a loss that is missing or made up is named."""

from underpar.referee.audit.check_readme import unmatched


def test_a_readme_may_round_what_a_log_has_rounded_already() -> None:
    """6.276451 is 6.27645 in the log and 6.2765 in the README, while 6.27645 would round to 6.2764."""
    assert unmatched(["6.2871", "6.2765"], [6.27645, 6.28706]) == ([], [])


def test_equal_losses_are_counted_one_by_one() -> None:
    assert unmatched(["3.2797", "3.2797"], [3.2797, 3.2804]) == ([3.2804], ["3.2797"])
    assert unmatched(["3.2761", "3.2797"], [3.2797]) == ([], ["3.2761"])
