"""From raw Russian text to masked batches. Knows nothing of networks of peers."""
