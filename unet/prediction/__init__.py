"""Predict files and folders of files; large images are read, predicted and written in bands of rows."""
