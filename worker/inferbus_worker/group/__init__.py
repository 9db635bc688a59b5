"""What makes a worker a member of a group: requests lie in a store that all share, and whoever has a slot takes."""
