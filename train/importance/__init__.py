"""What a pair weighs: measures of its routing, and of how sure an encoder is of its text."""
