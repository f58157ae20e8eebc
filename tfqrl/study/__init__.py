"""Studies: a grid of trainings, what conversion makes of their policies, and the tables drawn from it."""
