"""Makes JPEGs of 640 x 480 pixels of photographs, with grain in place of the detail that small ones lack: about 80 KB each.

  python pictures.py PHOTOGRAPHS OUT_DIR [--count N] [--size WIDTH HEIGHT]

Needs: Pillow, numpy.
"""

import argparse
import os

import numpy as np
from PIL import Image

GRAIN = 4  # standard deviation, of 255
QUALITY = 90


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs")
    parser.add_argument("out")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480))
    a = parser.parse_args()
    os.makedirs(a.out, exist_ok=True)
    rng = np.random.default_rng(0)
    for i, name in enumerate(sorted(os.listdir(a.photographs))[: a.count]):
        image = Image.open(os.path.join(a.photographs, name)).convert("RGB").resize(a.size, Image.BICUBIC)
        grainy = np.asarray(image) + rng.normal(0, GRAIN, (a.size[1], a.size[0], 1))
        Image.fromarray(grainy.clip(0, 255).round().astype(np.uint8)).save(f"{a.out}/{i:03}.jpg", quality=QUALITY)


if __name__ == "__main__":
    main()
