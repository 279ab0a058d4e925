"""Long runs stay small: tiers, retention, merging of short stays."""

from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from coordinator.downsampling import Interval, Retention, choose_bucket, choose_tier, coalesce
from coordinator.history import History
from tests.coordinator.runs import T0, peer, run_status

HOUR, DAY = 3600.0, 86400.0


def test_bucket_grows_with_the_span() -> None:
    assert choose_bucket(300, 600) == 1
    assert choose_bucket(DAY, 600) == 300
    assert 60 * DAY / choose_bucket(60 * DAY, 600) <= 600


def test_tier_reaches_back_far_enough() -> None:
    retention = Retention(seconds=2 * HOUR, minutes=7 * DAY)
    assert choose_tier(10, T0 - HOUR, T0, retention) == (1, 10)
    assert choose_tier(10, T0 - DAY, T0, retention) == (60, 60)
    assert choose_tier(300, T0 - DAY, T0, retention) == (60, 300)
    assert choose_tier(300, T0 - 30 * DAY, T0, retention) == (3600, 3600)
    assert choose_tier(7200, T0 - 30 * DAY, T0, retention) == (3600, 7200)


def test_old_seconds_go_and_hours_stay(tmp_path: Path) -> None:
    history = History(tmp_path / "history.sqlite", Retention(seconds=600, minutes=2 * HOUR))
    for second in range(0, int(5 * HOUR), 20):
        peers = [peer(n) for n in range(1 + (second >= HOUR))]
        history.record_status(run_status(*peers), T0 + second)
    recent = history.counts(T0 + 5 * HOUR - 300)
    assert recent["bucket"] == 1
    whole = history.counts(T0)
    assert whole["bucket"] == 3600
    assert whole["training"] == [1, 2, 2, 2, 2]
    minutes = history.counts(T0 + 4 * HOUR)
    assert minutes["bucket"] == 60
    assert len(minutes["t"]) == 60
    history.close()


def test_alternation_of_training_and_averaging_is_merged_when_old(tmp_path: Path) -> None:
    history = History(tmp_path / "history.sqlite", Retention(exact_intervals=600))
    for second in range(0, 7200, 5):
        state = "averaging" if second % 60 == 0 else "training"
        history.record_status(run_status(peer(1, state)), T0 + second)
    (row,) = history.timeline(T0, points=5000)["peers"]
    stays = list(zip(*[iter(row["stays"])] * 3, strict=True))
    assert len([stay for stay in stays if stay[0] >= 6600]) >= 18
    old = [stay for stay in stays if stay[0] < 6000]
    assert len(old) < 10
    assert stays[0][0] == 0
    assert all(abs(a[0] + a[1] - b[0]) < 0.2 for a, b in pairwise(stays))
    history.close()


@given(
    st.lists(st.tuples(st.floats(0, 300), st.floats(0.1, 300), st.integers(0, 6)), max_size=40),
    st.floats(1, 120),
)
def test_coalescing_keeps_order_extent_and_silence(parts: list, resolution: float) -> None:
    stays, t = [], 0.0
    for silence, length, state in parts:
        t += silence
        stays.append(Interval(t, t + length, state))
        t += length
    merged = coalesce(stays, resolution)
    assert len(merged) <= len(stays)
    assert all(a.ended <= b.started for a, b in pairwise(merged))
    if stays:
        assert (merged[0].started, merged[-1].ended) == (stays[0].started, stays[-1].ended)
    for before, after in pairwise(stays):
        if after.started - before.ended > resolution:
            assert any(stay.ended == before.ended for stay in merged)
