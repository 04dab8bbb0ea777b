"""Export of a checkpoint as a bundle that runs without this project, checked against the trained network."""
