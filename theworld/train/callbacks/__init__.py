"""What rides along in Composer's trainer: one callback a file."""
