"""Four tasks, two of which lose by joint training: what gives the points back?"""
