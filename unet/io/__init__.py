"""Files: atomic writing, run folders, provenance, image formats."""
