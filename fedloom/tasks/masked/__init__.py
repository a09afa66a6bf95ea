"""The steps of a round with secure aggregation: each plays one stage of a session for the clients of a shard."""
