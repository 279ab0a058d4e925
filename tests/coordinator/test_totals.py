"""Samples over the life of a run: restarts, hand-overs, goodput."""

from __future__ import annotations

import pytest

from coordinator.totals import MAX_TOTAL, Counters, Totals
from swarm.records import MAX_COUNT


def test_goodput_counts_what_was_handed_over_for_the_one_who_computed_it():
    totals = Totals()
    totals.count("leaver", Counters(computed=100, contributed=60, handed_over=40))
    totals.count("heir", Counters(computed=50, contributed=90, taken_over=40))
    assert totals.by_peer["leaver"].goodput(pending=0) == 1.0
    assert totals.by_peer["heir"].goodput(pending=0) == 1.0
    assert totals.all.goodput(pending=0) == 1.0


def test_what_a_killed_peer_had_accumulated_is_lost_and_what_is_pending_is_neither():
    totals = Totals()
    totals.count("killed", Counters(computed=100, contributed=80))
    totals.count("alive", Counters(computed=100, contributed=90))
    assert totals.all.goodput(pending=10) == pytest.approx(170 / 190)


def test_a_restarted_peers_counters_begin_anew_and_its_past_is_kept():
    totals = Totals()
    for computed, contributed in ((100, 90), (8, 0), (20, 16)):
        totals.count("peer", Counters(computed=computed, contributed=contributed))
    assert totals.by_peer["peer"] == Counters(computed=120, contributed=106)


def test_totals_outlive_the_coordinator_and_a_broken_file_starts_from_zero_with_a_word(tmp_path, caplog):
    totals = Totals()
    totals.count("peer", Counters(computed=5, contributed=4))
    path = tmp_path / "totals.json"
    path.write_text(totals.model_dump_json())
    assert Totals.load(path) == totals
    for broken in ("{", ""):
        path.write_text(broken)
        caplog.clear()
        assert Totals.load(path) == Totals()
        assert f"{path} cannot be read" in caplog.text
        assert "counted from zero" in caplog.text


def test_a_run_that_begins_has_nothing_to_say_of_its_totals(tmp_path, caplog):
    assert Totals.load(tmp_path / "totals.json") == Totals()
    assert caplog.text == ""


def test_who_was_silent_for_long_is_forgotten_and_its_samples_stay():
    totals = Totals()
    for peer in ("gone", "here"):
        totals.count(peer, Counters(computed=5, contributed=4))
    for hour in range(8 * 24):
        totals.count("here", Counters(computed=6 + hour, contributed=5 + hour))
        totals.age(3600.0)
    assert set(totals.last) == set(totals.by_peer) == set(totals.unheard) == {"here"}
    assert totals.all.contributed == 4 + totals.by_peer["here"].contributed
    totals.count("gone", Counters(computed=3, contributed=2))
    assert totals.all.contributed == 6 + totals.by_peer["here"].contributed


def test_a_file_of_an_earlier_version_is_read(tmp_path):
    totals = Totals()
    totals.count("peer", Counters(computed=5, contributed=4))
    path = tmp_path / "totals.json"
    path.write_text(totals.model_dump_json(exclude={"unheard"}))
    read = Totals.load(path)
    read.age(60.0)
    read.count("peer", Counters(computed=7, contributed=5))
    assert read.all == Counters(computed=7, contributed=5)


def test_nothing_computed_has_no_goodput():
    assert Counters().goodput(pending=0) is None


def test_a_counter_that_jumps_up_and_down_adds_no_more_than_one_process_can_count():
    totals = Totals()
    totals.count("honest", Counters(contributed=8))
    for _ in range(100):
        totals.count("liar", Counters(contributed=MAX_COUNT))
        totals.count("liar", Counters(contributed=0))
    assert totals.all.contributed == MAX_COUNT + 8


def test_sums_end_at_what_a_database_holds():
    totals = Totals(all=Counters(contributed=MAX_TOTAL - 3))
    totals.count("peer", Counters(contributed=8))
    assert totals.all.contributed == MAX_TOTAL


def test_kept_totals_that_nobody_can_have_reached_are_left_out(tmp_path):
    honest, liar = Counters(computed=5, contributed=4), Counters(contributed=2**53 - 1)
    by_peer = {"honest": honest, **{f"liar-{number}": liar for number in range(1025)}}
    kept = Totals(all=Counters(contributed=1025 * (2**53 - 1) + 4), by_peer=by_peer, last=by_peer)
    path = tmp_path / "totals.json"
    path.write_text(kept.model_dump_json())
    totals = Totals.load(path)
    assert (totals.all, totals.by_peer) == (honest, {"honest": honest})
    totals.count("liar-0", liar)
    assert totals.all == honest
