"""Model vectors to what a loss wants."""
