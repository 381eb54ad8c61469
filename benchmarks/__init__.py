"""Measurements of imae_ext: training on noisy labels, and speed."""
