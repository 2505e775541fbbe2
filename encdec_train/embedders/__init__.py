"""Units to tokens."""
