"""Alert rules and their evaluation; nothing yet."""
