"""The steps of a round with two servers: clients split their updates, each server adds one half."""
