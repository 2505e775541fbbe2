"""From rows to batches: sources, transforms, order, collation."""
