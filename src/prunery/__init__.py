"""Prunery: finds the small network inside a big one, proves what it kept, and runs it fast on an ordinary CPU."""
