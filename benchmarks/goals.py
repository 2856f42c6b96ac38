"""What was aimed at: the time of ours over a peer's."""

SOLVER = 0.35
SOLVERS = {"cagrad": 0.1, "nash_mtl": 0.1, "fairgrad": 0.1}
AGGREGATE = 0.8
# An update of MT-SAC: CAGrad's over that of the summed loss; PCGrad's over a peer's
RL_UPDATE, RL_PEER = 1.8, 0.6
