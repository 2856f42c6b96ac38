"""Multi-task reinforcement learning: MT-SAC with any method, and tasks to try it on."""
