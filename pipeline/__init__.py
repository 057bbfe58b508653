"""What runs the study from outside: preflight, demo, UI, seeds, real data. No package imports this."""
