"""Campaigns of faults: many kills, damaged files and broken environments, what each led to, counted."""
