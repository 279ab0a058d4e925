"""What every participant of a run must agree on: spec, records, admission, bundle, DHT."""
