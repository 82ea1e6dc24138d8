"""A site's side of a run: it checks questions, learns, keeps state, and answers. Nothing leaves but through the outbox."""
