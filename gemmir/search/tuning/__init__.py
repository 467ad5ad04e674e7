"""The search for the fastest schedule of a problem."""
