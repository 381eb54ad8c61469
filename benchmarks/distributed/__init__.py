"""Losses over several processes: a training example for torchrun."""
