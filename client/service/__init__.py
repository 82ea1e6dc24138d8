"""The processes that a hospital keeps running, and what they say that they are doing."""
