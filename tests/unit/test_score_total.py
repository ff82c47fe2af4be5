"""The total, against a worked example and totals that a team published with their parts."""

from __future__ import annotations

import pytest

from jstyle.score.total import METRICS, bought, content_part, style_part, total

BY_HAND = {
    "dino": 0.5,  # 0.2 * 0.5 = 0.1
    "hist": 0.75,  # 0.4 * 0.75 = 0.3
    "lpips": 0.5,  # 0.4 * 0.5 = 0.2, so 0.6 for the style
    "clip_r": 0.8,  # 0.5 * 0.8 = 0.4
    "fid": 5.0,  # 0.4 * 15 / 20 = 0.3
    "clip_iqa": 0.5,  # 0.1 * 0.5 = 0.05, so 0.75 for the content, and 0.6 * 0.75 = 0.45
}
# github.com/czpcf/jittor-5-b, README, sections 4 and 7: the organiser's leaderboard of board B
LEADERBOARD = [
    ((0.2125, 0.747, 0.3939, 2.813, 0.62, 0.7451), 0.4251),
    ((0.1916, 0.73, 0.4113, 3.8127, 0.7629, 0.7579), 0.4419),
    ((0.1762, 0.6811, 0.4223, 3.1457, 0.8457, 0.7471), 0.4497),
    ((0.1737, 0.7144, 0.4154, 3.272, 0.8586, 0.7463), 0.4648),
    ((0.2078, 0.7663, 0.3976, 3.8347, 0.6843, 0.7459), 0.4359),
    ((0.1921, 0.7456, 0.4114, 3.3376, 0.6771, 0.7591), 0.4278),
]
# github.com/Xlucidator/JDiffArtFlow, README, 4.1 and 4.2: parts and totals of the checker
PUBLISHED = [
    ((0.120226, 0.779055, 0.428658, 1.674596, 0.930667, 0.757711), 0.512078),
    ((0.1130, 0.4388, 0.5391, 1.7101, 0.8293, 0.7567), 0.3274),
    ((0.1318, 0.7977, 0.4342, 1.5406, 0.9067, 0.7273), 0.5119),
]


def test_the_total_of_an_example_worked_by_hand():
    assert style_part(0.5, 0.75, 0.5) == pytest.approx(0.6)
    assert content_part(0.8, 5.0, 0.5) == pytest.approx(0.75)
    assert total(BY_HAND) == pytest.approx(0.45)


@pytest.mark.parametrize(("parts", "published"), LEADERBOARD)
def test_six_totals_of_the_leaderboard_come_out_of_their_parts_to_four_decimals(parts, published):
    assert f"{total(dict(zip(METRICS, parts, strict=True))):.4f}" == f"{published:.4f}"


@pytest.mark.parametrize(("parts", "published"), PUBLISHED)
def test_the_total_of_published_parts_is_the_published_total(parts, published):
    digits = len(str(published)) - 2
    found = total(dict(zip(METRICS, parts, strict=True)))
    assert found == pytest.approx(published, abs=2 * 10.0**-digits)


def test_a_fid_beyond_twenty_counts_nothing_more():
    assert total({**BY_HAND, "fid": 20.0}) == total({**BY_HAND, "fid": 300.0})


@pytest.mark.parametrize("name", METRICS)
def test_no_total_is_invented_when_a_part_is_missing(name):
    assert total({**BY_HAND, name: None}) is None
    assert total({key: value for key, value in BY_HAND.items() if key != name}) is None


def test_what_each_metric_bought_sums_to_the_change_of_the_total():
    before, after = (dict(zip(METRICS, parts, strict=True)) for parts, _ in PUBLISHED[:2])
    shares = bought(before, after)
    assert tuple(shares) == METRICS
    assert sum(shares.values()) == pytest.approx(total(after) - total(before))
    assert shares["hist"] == min(shares.values())  # it fell from 0.78 to 0.44
    assert bought(after, before) == pytest.approx({name: -v for name, v in shares.items()})
    alone = bought(before, {**before, "clip_r": 0.5})
    assert [name for name, value in alone.items() if value] == ["clip_r"]
    beyond = bought({**before, "fid": 25.0}, {**before, "fid": 300.0})
    assert not any(beyond.values())
