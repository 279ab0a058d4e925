"""A seeded model of a swarm too large for one machine: how long its steps take and what of its work counts."""
