"""Secure aggregation: a server learns the sum of its clients' vectors and nothing else.

SecAgg+ (Bell et al. 2020) for one server that may cheat, as state machines that exchange bytes: `client.Client` and
`server.Server`, joined by `messages.make_terms` and the numbers of `parameters.choose`. `two_server` is the one-shot
alternative for two servers that do not work together. No network and no engine is in sight: what runs the stages is
up to the caller.
"""
