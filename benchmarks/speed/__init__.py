"""How long a forward and backward pass takes, side by side with what one would otherwise use: `make bench`."""
