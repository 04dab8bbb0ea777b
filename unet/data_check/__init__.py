"""A data set looked at before it is trained on: what is in its files, what is wrong with it, what to try first."""
