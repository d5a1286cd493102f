"""The local cloud: starts it, deploys into it, shows the whole thread working."""
