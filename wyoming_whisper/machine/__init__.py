"""What this machine is, and what was measured on it."""
