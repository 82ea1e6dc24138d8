"""A site's own page on its own cases; nothing of it leaves."""
