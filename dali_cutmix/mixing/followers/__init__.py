"""Followers: images, labels, masks and boxes obey the plan, written once for all methods."""
