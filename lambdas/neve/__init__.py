"""neve: what every Lambda and the operators' command share."""
