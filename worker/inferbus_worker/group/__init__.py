"""What makes one worker a member of a group: requests lie in a store that all of them share, and whoever has a slot takes."""
