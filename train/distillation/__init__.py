"""Teaching a student what routing and projection do: its data, teachers, shapes and training."""
