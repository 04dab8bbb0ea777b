"""Prediction of files: read in bands, labelled tile by tile, written in bands, over whole folders."""
