"""Tables of papers, as data: what is run for them, what it takes, and what came out beside them."""
