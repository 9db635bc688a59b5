"""Settings, each said once: where they come from, what they mean, what is wrong with them."""
