"""report.json, and what people read of it."""
