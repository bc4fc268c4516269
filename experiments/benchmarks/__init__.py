"""Speed beside other libraries: each script runs every side on one core, in turn, and writes medians and ratios."""
