"""A comparison of finished runs as one web page that needs nothing else, not even a network."""
