"""What can be known of a run before its GPU hours are spent."""
