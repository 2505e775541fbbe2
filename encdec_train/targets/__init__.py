"""What a prediction is held against."""
