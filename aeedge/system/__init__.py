"""What this machine is, what it allows, and what state it is in."""
