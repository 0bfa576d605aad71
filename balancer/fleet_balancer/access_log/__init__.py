"""A line for each request, in a file for each app."""
