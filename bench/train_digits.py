"""Train the digits networks that ship with neurofail, and write them with their held-out test set.

    python bench/train_digits.py

Needs scikit-learn (the `dev` extra); takes a few seconds. What it writes is described in
src/neurofail/data/README.md.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from neurofail.formats.arrays import write_npz
from neurofail.network import Network

DATA = Path(__file__).parents[1] / "src" / "neurofail" / "data"
SEED = 0

# Each penalty is the best of 0.01, 0.1, 0.3, 1 and 3 by 4-fold cross-validation on the training images alone;
# of equals, the larger: bounds multiply weights, so moderate weights make them worth reading.
NETWORKS = {  # name: hidden widths, hidden activation (ours, scikit-learn's), L2 penalty
    "sigmoid": ((64, 32), "sigmoid", "logistic", 0.3),
    "relu": ((64, 32), "relu", "relu", 1.0),
    "deep": ((48, 48, 32), "relu", "relu", 3.0),
}


def main() -> None:
    """Write digits-{sigmoid,relu,deep}.npz and digits-test.npz, and print each test accuracy."""
    images, labels = load_digits(return_X_y=True)
    inputs, held_inputs, targets, held_labels = train_test_split(
        images / 16, labels, test_size=0.3, stratify=labels, random_state=SEED
    )
    write_npz(  # k/16 is exact in float32
        DATA / "digits-test.npz",
        {"inputs": held_inputs.astype(np.float32), "labels": held_labels.astype(np.uint8)},
    )
    for name, (hidden, ours, theirs, penalty) in NETWORKS.items():
        model = MLPClassifier(
            hidden,
            activation=theirs,
            solver="lbfgs",
            alpha=penalty,
            max_iter=2000,
            tol=1e-3,
            random_state=SEED,
        )
        with threadpool_limits(1):  # threads would sum in another order, and training amplifies the rounding
            model.fit(inputs, targets)
        # float32 numbers: a float32 campaign then starts from exactly the network the bounds read. Without
        # the softmax, the network's outputs are the logits.
        net = Network.dense(
            [weight.T.astype(np.float32) for weight in model.coefs_],
            [bias.astype(np.float32) for bias in model.intercepts_],
            [ours] * len(hidden) + ["identity"],
            input_range=(0.0, 1.0),
        )
        accuracy = np.mean(net(held_inputs).argmax(axis=1) == held_labels)
        assert accuracy >= 0.95, f"{name}: test accuracy {accuracy:.4f}"
        net.save(DATA / f"digits-{name}.npz")
        print(f"digits-{name}.npz: {net}, test accuracy {accuracy:.4f}, {model.n_iter_} iterations")


if __name__ == "__main__":
    main()
