"""Networks and blocks, one a file, named for what they are."""
