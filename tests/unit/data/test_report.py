"""Names in the data report's JSON."""

from __future__ import annotations

from pawcast.data import report


def test_ranges_of_the_longest_side_are_identifiers():
    assert report._histogram([64, 65, 300, 5_000]) == {"up_to_64": 1, "up_to_128": 1, "up_to_512": 1, "over_4096": 1}
