"""A hospital's own live page: what left it, when and how large, by its ledger. It shows no case, and asks nobody."""
