"""Which cases there are, which files they have, and generated ones."""
