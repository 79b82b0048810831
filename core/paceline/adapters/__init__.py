"""Jobs out of what other trainers take. Each imports its library when it is made; docs/adapters.md shows them."""
