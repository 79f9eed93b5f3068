"""One chunk, one stage: read, compute, write, mark. The only place where science meets storage."""
