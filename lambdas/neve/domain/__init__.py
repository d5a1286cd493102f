"""Pure rules. Nothing here talks to AWS, reads a clock or an environment."""
