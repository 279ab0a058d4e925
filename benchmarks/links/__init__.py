"""The two kinds of peers that `benchmarks.swarm_links` compares; each is a process on a host of its own."""
