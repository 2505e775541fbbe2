"""Memory to predicted rows."""
