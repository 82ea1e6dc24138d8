"""The command `client`: arguments and words for people. What it does is in the other rooms."""
