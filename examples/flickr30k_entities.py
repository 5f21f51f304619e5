"""Flickr30k Entities' own files (Annotations/*.xml, Sentences/*.txt) as what `simla eval grounding` reads.

  python3 examples/flickr30k_entities.py flickr30k-entities flickr30k-images boxes.json --ids flickr30k-entities/test.txt
  simla eval grounding --checkpoint runs/mine --data boxes.json --image-root flickr30k-images

Writes `[{"image", "objects": [{"phrase", "box"}], "proposals"?}]`: every phrase of the captions that has a box, as often as it is said. Of the
several boxes of one chain ("two men"), the box around all counts, as is usual. Boxes are [left, top, width, height] in
pixels of the pictures at hand, which may be smaller than those that were annotated. Needs Pillow.
"""
import argparse
import json
import pathlib
import re
import xml.etree.ElementTree as ElementTree

from PIL import Image

# [/EN#18/people A little girl]
PHRASE = re.compile(r"\[/EN#(\d+)(?:/[^ \]]+)* ([^\]]+)\]")


def boxes(path, size):
    """By chain, its boxes in a picture of `size`. In the file they are counted from 1, the last pixel included."""
    root = ElementTree.parse(path).getroot()
    across, down = (size[i] / float(root.findtext(f"size/{side}")) for i, side in enumerate(("width", "height")))
    found = {}
    for item in root.iter("object"):
        corners = [item.findtext(f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax")]
        if None not in corners:
            left, top, right, bottom = map(float, corners)
            box = [(left - 1) * across, (top - 1) * down, (right - left + 1) * across, (bottom - top + 1) * down]
            for name in item.iter("name"):
                found.setdefault(name.text, []).append(box)
    return found


def around(all):
    left, top = min(b[0] for b in all), min(b[1] for b in all)
    return [left, top, max(b[0] + b[2] for b in all) - left, max(b[1] + b[3] for b in all) - top]


def rounded(box):
    return [round(number, 2) for number in box]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entities", type=pathlib.Path, help="folder with Annotations/ and Sentences/")
    parser.add_argument("images", type=pathlib.Path, help="folder of the pictures; those that are not there are left out")
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--ids", type=pathlib.Path, help="a file of pictures, a line each, as the splits have them [default: all]")
    parser.add_argument("--annotated-proposals", action="store_true", help="every annotated box of a picture as a proposal")
    a = parser.parse_args()
    named = a.ids.read_text().split() if a.ids else sorted(path.stem for path in (a.entities / "Sentences").glob("*.txt"))
    records, missing, phrases = [], 0, 0
    for name in named:
        image = a.images / f"{name}.jpg"
        if not image.exists():
            missing += 1
            continue
        with Image.open(image) as picture:
            of_chain = boxes(a.entities / "Annotations" / f"{name}.xml", picture.size)
        said = PHRASE.findall((a.entities / "Sentences" / f"{name}.txt").read_text(encoding="utf-8"))
        objects = [{"phrase": words, "box": rounded(around(of_chain[chain]))} for chain, words in said if chain in of_chain]
        record = {"image": image.name, "objects": objects}
        if a.annotated_proposals:
            record["proposals"] = list({tuple(rounded(box)): None for own in of_chain.values() for box in own})
        records.append(record)
        phrases += len(objects)
    a.output.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    print(f"{a.output}: {phrases} phrases in {len(records)} pictures; {missing} pictures are not there")


if __name__ == "__main__":
    main()
