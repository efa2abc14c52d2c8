"""What conv6_ways.py is made of: the networks, the run times, the list of ways, and how they are shown."""
