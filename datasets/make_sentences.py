"""Makes sentences.npz: sentences from the docstrings of Python's own library, as token numbers.

    python datasets/make_sentences.py [FOLDER]

Reads the source of the standard library of the Python that runs it, nothing from the network. A
sentence is text between full stops inside a paragraph; two that follow each other are a pair. The
vocabulary is the most frequent words of the training modules. Modules are split, not sentences:
what is tested comes from modules never trained on.

Needs: numpy; seconds.
"""

import argparse
import ast
import hashlib
import itertools
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

WORDS = 2048
LENGTH = 24
PAD, UNKNOWN = 0, 1
SPLITS = {"calibration": 128, "test": 256}
WORD = re.compile(r"[a-z]+|\d|[^\sa-z\d]")
SKIPPED = ("test", "idlelib", "lib2to3", "site-packages", "__pycache__", "pydoc_data", "turtledemo")


def documents(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Each module's name and the docstrings in it, in a fixed order."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if any(p in SKIPPED or p.startswith("test") for p in parts):
            continue
        tree = ast.parse(path.read_bytes())
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        found = [ast.get_docstring(n) for n in ast.walk(tree) if isinstance(n, kinds)]
        yield "/".join(parts), [d for d in found if d]


def sentences(docstring: str) -> list[list[str]]:
    """The sentences of each paragraph, as words; code and very short ones are left out."""
    kept: list[list[str]] = []
    for paragraph in docstring.split("\n\n"):
        if ">>>" in paragraph:
            continue
        text = " ".join(paragraph.split()).lower()
        kept += [w for s in re.split(r"(?<=[.!?:])\s", text) if len(w := WORD.findall(s)) >= 6]
    return kept


def main() -> None:
    """Reads the command line, collects and writes."""
    parser = argparse.ArgumentParser(description="Makes sentences.npz.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent)
    folder = parser.parse_args().folder
    held: dict[str, list[list[str]]] = {"train": [], "calibration": [], "test": []}
    pairs: list[tuple[list[str], list[str]]] = []
    for name, docstrings in documents(Path(sysconfig.get_path("stdlib"))):
        place = hashlib.sha256(name.encode()).digest()[0] % 10
        split = {0: "test", 1: "calibration"}.get(place, "train")
        for docstring in docstrings:
            found = sentences(docstring)
            held[split] += found
            if split == "train":
                pairs += list(itertools.pairwise(found))
    counted = Counter(w for s in held["train"] for w in s)
    words = ["<pad>", "<unknown>", *(w for w, _ in counted.most_common(WORDS - 2))]
    number = {w: i for i, w in enumerate(words)}

    def encoded(texts: list[list[str]]) -> np.ndarray:
        ids = np.full((len(texts), LENGTH), PAD, np.int64)
        for row, text in zip(ids, texts, strict=True):
            cut = text[:LENGTH]
            row[: len(cut)] = [number.get(w, UNKNOWN) for w in cut]
        return ids

    arrays = {"first": encoded([a for a, _ in pairs]), "second": encoded([b for _, b in pairs])}
    arrays = {k: v.astype(np.int16) for k, v in arrays.items()}
    for split, count in SPLITS.items():
        unique = list({tuple(s): s for s in held[split]}.values())
        step = len(unique) // count
        ids = encoded(unique[::step][:count])
        arrays[f"{split}_input_ids"] = ids.astype(np.int16)
    arrays["words"] = np.array(words)
    np.savez_compressed(folder / "sentences.npz", **arrays)
    for name, array in arrays.items():
        print(f"{name}: {array.dtype}{list(array.shape)}")


if __name__ == "__main__":
    main()
