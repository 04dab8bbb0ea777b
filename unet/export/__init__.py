"""A checkpoint as a bundle that runs without this project, checked against the network it came from."""
