"""Losses over several processes: rows or classes spread over a group, and DTensor, which says which of them."""
