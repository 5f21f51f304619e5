"""The phrases of a search, and what its results come to; see run.sh."""
import json, os, pathlib, statistics, sys


def phrases(data, count, out):
    """The pictures of a data file as a folder of links, and the first caption of some of them."""
    records = json.load(open(data))
    root, images = pathlib.Path(data).resolve().parent, pathlib.Path(out) / "images"
    images.mkdir()
    for i, record in enumerate(records):
        os.symlink(root / record["image"], images / f"{i:05}{pathlib.Path(record['image']).suffix}")
    with open(f"{out}/phrases.txt", "w") as file:
        for record in records[:: max(1, len(records) // int(count))][: int(count)]:
            caption = record["caption"]
            file.write((caption if isinstance(caption, str) else caption[0]).replace("\n", " ") + "\n")
    json.dump(list(range(len(records)))[:: max(1, len(records) // int(count))][: int(count)], open(f"{out}/truth.json", "w"))


def results(out):
    truth = json.load(open(f"{out}/truth.json"))
    found = {kept: [json.loads(line) for line in open(f"{out}/{kept}.jsonl")] for kept in ["half", "8bit", "none"]}
    names = {kept: [[pathlib.Path(r["image"]).stem for r in answer["results"]] for answer in answers] for kept, answers in found.items()}
    pictures = found["half"][0]["searched"]
    print(f"{len(truth)} phrases, {pictures} pictures, 64 candidates matched")
    print(f"{'patches':8} {'KB a picture':>12} {'ms a search':>12} {'R@1':>6} {'R@5':>6} {'R@10':>6}   {'same first, first 5, first 10 of half':38} {'most a probability moved':>24}")
    for kept, answers in found.items():
        size = sum(f.stat().st_size for f in pathlib.Path(out, kept).iterdir() if f.name.startswith("rows-")) / pictures / 1e3
        time = 1e3 * statistics.median(answer["seconds"] for answer in answers)
        recall = [100 * statistics.mean(f"{t:05}" in own[:k] for t, own in zip(truth, names[kept])) for k in (1, 5, 10)]
        same = [100 * statistics.mean(a[:k] == b[:k] for a, b in zip(names["half"], names[kept])) for k in (1, 5, 10)]
        sure = [{r["image"]: r["matching"] for r in answer["results"]} for answer in answers]
        half = [{r["image"]: r["matching"] for r in answer["results"]} for answer in found["half"]]
        moved = max(abs(own[image] - other[image]) for own, other in zip(sure, half) for image in own.keys() & other.keys())
        print(f"{kept:8} {size:12.1f} {time:12.0f} {recall[0]:6.1f} {recall[1]:6.1f} {recall[2]:6.1f}   {same[0]:5.1f} % {same[1]:5.1f} % {same[2]:5.1f} % {moved:37.5f}")


if __name__ == "__main__":
    {"phrases": phrases, "results": results}[sys.argv[1]](*sys.argv[2:])
