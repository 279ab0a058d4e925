"""The questions that are asked of long stretches, as SQL, with the names of their columns.

Each groups by a bucket of time. Steps and events have a second form over the hourly tables, for buckets
of an hour and more: a run of months has a hundred thousand of each.
"""

from coordinator.status import PEER_STATES

COUNT_NAMES = (
    "t",
    *PEER_STATES,
    *("client_mode", "gpus", "samples_per_second", "online_min", "online_max"),
    *("samples_total", "samples_accumulated", "global_step"),
)
MEANS = (*PEER_STATES, "client_mode", "gpus", "samples_per_second")
NEWEST = ("samples_total", "samples_accumulated", "global_step")
COUNTS = (
    "SELECT t / :bucket * :bucket AS b, "
    + ", ".join(f"round(sum({column}) * 1.0 / sum(n), 2)" for column in MEANS)
    + ", min(online_min), max(online_max), "
    + ", ".join(f"max({column})" for column in NEWEST)
    + " FROM counts WHERE tier = :tier AND t >= :start AND t < :end GROUP BY b ORDER BY b"
)
STEP_NAMES = (
    *("t", "global_step", "loss", "samples", "group_size", "peers_alive", "received_fraction", "seconds"),
    *("bytes", "failed_rounds", "partial_rounds", "steps"),
)
STEPS = (
    "SELECT max(t), max(global_step), avg(loss), sum(samples), avg(group_size), avg(peers_alive), "
    "avg(received_fraction), avg(seconds), sum(bytes), sum(failed_rounds), "
    "COALESCE(sum(received_fraction < 0.999), 0), count(*) "
    "FROM steps WHERE t >= :start AND t < :end GROUP BY CAST(t / :bucket AS INTEGER) ORDER BY 1"
)
STEP_HOURS = (
    "SELECT max(newest), max(global_step), avg(loss), sum(samples), avg(group_size), avg(peers_alive), "
    "avg(received_fraction), avg(seconds), sum(bytes), sum(failed_rounds), sum(partial_rounds), sum(steps) "
    "FROM step_hours WHERE t >= :start - 3599 AND t < :end GROUP BY t / :bucket ORDER BY 1"
)
MARKS = (
    "SELECT min(t) AS t, kind, count(*) AS n FROM events WHERE t >= :start AND t < :end "
    "GROUP BY CAST(t / :bucket AS INTEGER), kind ORDER BY t"
)
MARK_HOURS = (
    "SELECT min(t) + 1800 AS t, kind, sum(n) AS n FROM event_hours WHERE t >= :start - 3599 AND t < :end "
    "GROUP BY t / :bucket, kind ORDER BY t"
)
