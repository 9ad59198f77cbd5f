"""Inspect millions of images: from folders, archives and tables, here or on a Ray cluster."""
