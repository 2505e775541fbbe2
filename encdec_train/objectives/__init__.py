"""The wirings."""
