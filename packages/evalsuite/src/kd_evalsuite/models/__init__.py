"""Models that answer: one file a way of asking."""
