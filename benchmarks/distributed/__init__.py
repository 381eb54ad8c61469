"""Losses over several processes: a training example for torchrun, their speed, and a model of their bytes."""
