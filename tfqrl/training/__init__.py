"""What trains: configurations, the two loops, and what they share."""
