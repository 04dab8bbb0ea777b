"""The training task: the LightningModule, losses, metrics, schedules."""
