"""FashionGen's HDF5 files as what `simla` reads: photographs as PNG, and a JSON of products.

  python3 examples/fashiongen.py fashiongen_256_256_validation.h5 fashiongen/validation
  simla eval products --checkpoint runs/mine --data fashiongen/validation/products.json

Writes OUTPUT/products.json, `[{"image", "caption", "image_id", "category", "subcategory"}]`: `image_id` is the product, so that its one to six
photographs are positives of each other in `simla finetune retrieval` and one item in `simla eval retrieval`. Needs h5py, numpy and Pillow.
"""
import argparse
import json
import pathlib

import h5py
import numpy
from PIL import Image


def text(value):
    """A cell of [N, 1]: bytes in Latin-1, as the data set has them, or a number."""
    value = numpy.asarray(value).reshape(-1)[0]
    return value.decode("latin-1").strip() if isinstance(value, bytes) else str(value)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="fashiongen_256_256_train.h5 or fashiongen_256_256_validation.h5")
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--limit", type=int, help="only so many records")
    a = parser.parse_args()
    (a.output / "images").mkdir(parents=True, exist_ok=True)
    with h5py.File(a.file, "r") as data, open(a.output / "products.json", "w", encoding="utf-8") as products:
        count = len(data["input_image"]) if a.limit is None else min(a.limit, len(data["input_image"]))
        products.write("[")
        for i in range(count):
            image = f"images/{i:06}.png"
            Image.fromarray(data["input_image"][i]).save(a.output / image)
            cell = lambda name: text(data[name][i])
            record = {"image": image, "caption": cell("input_description"), "image_id": cell("input_productID"),
                      "category": cell("input_category"), "subcategory": cell("input_subcategory")}
            products.write(("," if i else "") + "\n" + json.dumps(record, ensure_ascii=False))
        products.write("\n]\n")
    print(f"{a.output / 'products.json'}: {count} photographs")


if __name__ == "__main__":
    main()
