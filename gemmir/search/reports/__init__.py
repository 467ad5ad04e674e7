"""Pages and plots of what was found."""
