"""Makes digits.npz from the handwritten digits that scikit-learn carries.

    python datasets/make_digits.py [FOLDER]

1,797 images of 8x8 pixels, split once and for all into train, calibration and test, each
split with the same share of every digit. Images are float32 [n, 1, 8, 8] in [0, 1] (the
source's 0..16, divided by 16: exact in BF16 and FP16), labels int64 [n].

Needs: scikit-learn, numpy. Origin and licence: digits.md.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SEED = 1797
CALIBRATION_SAMPLES = 200
TEST_SAMPLES = 400


def write_digits(path: Path) -> None:
    """Writes the three splits to `path`, the same bytes at every call."""
    pixels, digits = load_digits(return_X_y=True)
    images = (np.asarray(pixels).reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    labels = np.asarray(digits).astype(np.int64)
    order = np.arange(len(labels))
    order, test = train_test_split(
        order, test_size=TEST_SAMPLES, stratify=labels, random_state=SEED
    )
    train, calibration = train_test_split(
        order, test_size=CALIBRATION_SAMPLES, stratify=labels[order], random_state=SEED
    )
    arrays = {}
    for name, rows in (("train", train), ("calibration", calibration), ("test", test)):
        arrays[f"{name}_images"] = images[rows]
        arrays[f"{name}_labels"] = labels[rows]
        print(f"{name}: {len(rows)} images, per digit {np.bincount(labels[rows]).tolist()}")
    np.savez_compressed(path, allow_pickle=False, **arrays)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Makes digits.npz.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent)
    write_digits(parser.parse_args().folder / "digits.npz")


if __name__ == "__main__":
    main()
