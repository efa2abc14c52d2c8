"""The lottery ticket paper's Conv-2 on CIFAR-10, much reduced: one seed, a fifth of the iterations, large rounds.

Carries out recipes/lottery_conv2_short.toml (networks that are in --runs already are not made again): a ticket and a
reinitialised one at 54, 30, 16, 8.8 and 4.8 % of the weights, 4,000 iterations each where the paper has 20,000, five
rounds where it has fourteen. Draws its figure 5 with the paper's points laid over, and scores the claims that these
levels decide. One seed has no interval: a difference of less than a point says nothing.
"""

from paper import carried_out

QUICK = ["steps=20", "levels=1", "every=20"]

if __name__ == "__main__":
    carried_out(__doc__ or "", "lottery_conv2_short.toml", QUICK, (5,))
