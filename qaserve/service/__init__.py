"""What serves questions to many callers, and what puts the parts together."""
