"""What is hidden, rewritten or disturbed, and what is to be predicted."""
