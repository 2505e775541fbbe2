"""A finished run for people: a table, a page, pictures."""
