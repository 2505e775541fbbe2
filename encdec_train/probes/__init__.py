"""What a frozen encoder is worth: evaluations outside of every method."""
