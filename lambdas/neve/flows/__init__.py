"""Use cases: which side effect comes in which order, written against ports."""
