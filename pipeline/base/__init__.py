"""What every other room may use: events, files, locks, waiting."""
