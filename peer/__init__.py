"""One participant of a run: join, compute, average, report. Knows nothing of the coordinator."""
