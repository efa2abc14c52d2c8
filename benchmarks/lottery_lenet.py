"""The lottery ticket paper's own experiment: LeNet-300-100 on MNIST, 29 networks deep, many seeds, claim by claim.

Carries out recipes/lottery_lenet_mnist.toml (networks that are in --runs already are not made again), draws the paper's
figures 1, 3 and 4 with its points laid over, and scores each of its claims that this network decides: 28 rounds of
pruning, 50,000 iterations each, a ticket, three reinitialised ones, a random sparse network and a one-shot ticket at
every level of every seed. Early stops are found raw (the smallest validation loss) and smoothed (the middle of the
eleven looks in a row with the smallest mean). A claim that misses is a result: tolerances were set before the run.
"""

from paper import carried_out

QUICK = ["steps=300", "levels=7", "seeds=2", "reinits=1"]

if __name__ == "__main__":
    carried_out(__doc__ or "", "lottery_lenet_mnist", QUICK, (1, 3, 4))
