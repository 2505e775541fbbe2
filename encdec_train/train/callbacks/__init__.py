"""What happens around steps."""
