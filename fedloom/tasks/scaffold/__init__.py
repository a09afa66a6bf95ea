"""SCAFFOLD: control variates that take the drift out of local training.

Karimireddy et al. 2020, "SCAFFOLD: Stochastic controlled averaging for federated learning", algorithm 1 with option II.
A client i corrects each local gradient by c - c_i, where c_i estimates its own gradient and c the mean over all
clients, and says afterwards how its c_i has changed. It keeps its c_i from one round in which it took part to the next.
"""
