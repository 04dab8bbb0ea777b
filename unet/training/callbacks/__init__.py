"""What a training does beside training."""
