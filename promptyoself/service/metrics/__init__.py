"""What a Prometheus is told."""
