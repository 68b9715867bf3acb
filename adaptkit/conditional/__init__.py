"""Models that spend little on easy inputs."""
