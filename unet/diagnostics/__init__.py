"""Diagnostics that show where a network fails and which errors come from its resampling operators."""
