"""What a run tells the outside: definitions, Prometheus, JSON lines, trackers, and the HTTP server."""
