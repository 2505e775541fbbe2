"""Rows to units; one file per modality."""
