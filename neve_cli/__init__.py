"""The `neve` command that operators use."""
