"""A build as a whole: its vectors and its trained bundle under one id."""
