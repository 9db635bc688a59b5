"""Engines across the network: servers in OpenAI's or Anthropic's shape. The only room that imports their libraries."""
