"""What Frankle and Carbin's figures show (1803.03635v5), read off their pixels: accuracy to 0.4 points, early stops to
400 iterations."""

STOPS: dict[str, dict[float, float]] = {
    "ticket": {
        100: 4.7, 80: 4.8, 64: 4.4, 51: 4.0, 41: 4.4, 33: 3.7, 26: 3.6, 21: 3.6, 17: 3.5, 13.5: 3.2, 10.8: 3.6,
        8.7: 3.9, 7.0: 4.6, 5.6: 4.7, 4.5: 5.2, 3.6: 5.5, 2.9: 6.7, 1.9: 8.5, 1.5: 10.5, 1.2: 14.5, 0.5: 33,
    },
    "random": {16.9: 9, 7: 15, 2.9: 29, 1.9: 46, 1.2: 48},
}  # fmt: skip
"""Figure 1, left: percent of weights: thousands of iterations"""

STOP_ACCURACY: dict[float, float] = {100: 98.0, 1.2: 97.5}
"""Figure 1, right: from 98.0 to 98.4 down to 3 % of the weights, below 92.5 at 0.4 %"""

CURVE_ITERATIONS = (1000, 2000, 3000, 5000, 7500, 10_000, 15_000, 17_500)
CURVES = {
    ("ticket", 100.0): (96.55, 97.3, 97.6, 97.8, 98.0, 97.9, 98.0, 98.0),
    ("ticket", 51.3): (97.2, 97.7, 98.0, 98.1, 98.1, 98.1, 98.1, 98.2),
    ("ticket", 21.1): (97.6, 98.1, 98.3, 98.4, 98.3, 98.3, 98.35, 98.4),
    ("ticket", 7.0): (97.0, 97.8, 98.1, 98.2, 98.25, 98.25, 98.2, 98.2),
    ("ticket", 3.6): (96.5, 97.4, 97.7, 98.0, 98.0, 98.0, 98.0, 98.0),
    ("ticket", 1.9): (94.8, 96.4, 96.9, 97.3, 97.5, 97.7, 97.55, 97.5),
    ("reinit", 51.3): (96.3, 97.1, 97.6, 97.8, 97.9, 97.9, 98.0, 98.0),
    ("reinit", 21.1): (95.1, 96.5, 97.2, 97.6, 97.8, 97.8, 97.85, 97.8),
}
"""Figure 3: arm and percent of weights: mean test accuracy, percent, at those iterations"""
