"""What is broken on purpose around whole daemons, and how they live or end with it."""
