"""Multi-task reinforcement learning: MT-SAC on point masses that conflict."""
