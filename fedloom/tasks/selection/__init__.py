"""The parts of the step "select": who is eligible, how they are scored and drawn, and what is kept of it.

Everything works on columns of the fleet (numpy arrays in the order of client ids), not on clients one by one.
"""
