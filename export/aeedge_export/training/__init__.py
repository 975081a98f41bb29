"""How a network is trained: defaults, losses, the loop, devices, progress."""
