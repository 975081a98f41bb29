"""The right network for a device: candidates trained by successive halving, measured on the device, and their front."""
