"""The deployed stacks, and the local cloud that they run on."""
