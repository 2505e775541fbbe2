"""What is checked and timed of each operation: one file per operation, with `checks()`, `benches()` and `tunings()`."""
