"""What can be known of a run before a chip is booked: does it fit, and what limits it."""
