"""From updates to a model: weights, checks, rules that withstand hostile updates, optimisers of the server."""
