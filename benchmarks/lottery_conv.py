"""The lottery ticket paper's Conv-2 or Conv-4 on CIFAR-10, much reduced: one seed, 4,000 iterations, large rounds.

Carries out recipes/lottery_conv2_short.toml, or that of --recipe (networks that are in --runs already are not made
again): tickets and reinitialised networks, down to where the paper's are best, in three to five rounds instead of
eleven or more. Draws its figure 5 with the paper's points laid over, and scores the claims that these levels decide.
One seed has no interval: a difference of less than a point says nothing.
"""

from paper import carried_out

QUICK = ["steps=20", "levels=1", "every=20"]

if __name__ == "__main__":
    carried_out(__doc__ or "", "lottery_conv2_short", QUICK, (5,))
