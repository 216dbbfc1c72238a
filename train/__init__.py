"""What is learned from pairs: projections, and the experiments that judge them."""
