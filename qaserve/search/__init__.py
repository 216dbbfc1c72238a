"""A question in, answers and the reasons for them out."""
