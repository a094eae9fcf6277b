"""The page: order of its figures, template, live view, pictures."""
