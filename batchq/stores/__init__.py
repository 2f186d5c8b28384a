"""Where jobs live: synchronous, group-sized, one driver each, no trio."""
