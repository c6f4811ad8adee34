"""What runs: typed parameters, executed notebooks, functions, sweeps, recorded results, and the keys of all of them."""
