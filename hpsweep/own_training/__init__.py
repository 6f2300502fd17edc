"""Training that is the user's own: a command that trains one trial."""
