"""The peer of `simla bench retrieval`: the same model in PyTorch, every pair one forward of E_mm.

  python peer.py simla_reference.py [--dtype f32|bf16] [--device cpu|cuda] [--images N] [--captions N] [--top-k K]

The reference (its path is the first argument) has the encoders. As in published evaluations, the embeddings of an image are repeated
for each of its k captions, which makes E_mm project their keys and values k times. Needs: torch, numpy.
"""

import argparse
import importlib.util
import json
import resource
import time

import torch
import torch.nn.functional as F

BATCH, TOKENS = 32, 25

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("reference")
parser.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
parser.add_argument("--device", default="cpu")
parser.add_argument("--tf32", action="store_true", help="products in f32 in TF32, on a GPU, as of simla's --tf32")
parser.add_argument("--images", type=int, default=32)
parser.add_argument("--captions", type=int, default=128)
parser.add_argument("--top-k", type=int, default=16)
a = parser.parse_args()
spec = importlib.util.spec_from_file_location("reference", a.reference)
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)


def per_s(count, f):
    start = time.perf_counter()
    f()
    if a.device != "cpu":
        torch.cuda.synchronize()
    return count / (time.perf_counter() - start)


@torch.inference_mode()
def main():
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = a.tf32
    held = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if a.device != "cpu":  # as simla counts: what is no longer free, once there is a context
        torch.zeros(1, device=a.device).add_(1).item()
        free = torch.cuda.mem_get_info(a.device)[0]
        held = lambda: (free - torch.cuda.mem_get_info(a.device)[0]) / 2**30
    kind = torch.bfloat16 if a.dtype == "bf16" else torch.float32
    c = reference.Config()
    model = reference.Simla(c).eval().to(a.device, kind)
    images = torch.randn(a.images, 3, c.image_size, c.image_size).to(a.device, kind)
    ids = torch.randint(c.mask_id + 1, c.vocab_size, (a.captions, TOKENS), device=a.device)
    ids[:, 0], ids[:, -1] = c.cls_id, c.sep_id
    mask = torch.ones_like(ids)
    embeds = []

    def encode_captions(ids):
        for i in ids.split(BATCH):
            hidden = model.text_encoder.text(i, mask[: len(i)])
            F.normalize(model.text_proj(hidden[:, 0]).float(), dim=-1)

    def encode_images(images):
        for i in images.split(BATCH):
            hidden = model.visual_encoder(i)
            F.normalize(model.vision_proj(hidden[:, 0]).float(), dim=-1)
            embeds.append(hidden)

    def match(embeds):
        for n, own in enumerate(embeds):
            texts = ids[(torch.arange(a.top_k, device=a.device) + n * a.top_k) % a.captions]
            context = own.repeat(a.top_k, 1, 1)
            model.itm_head(model.text_encoder.multimodal(texts, mask[: a.top_k], context)[:, 0]).float().cpu()

    for warm_up in (encode_captions(ids[:1]), encode_images(images[:1]), match(embeds[0])):
        pass
    embeds.clear()
    report = {"what": "retrieval, PyTorch " + torch.__version__, "device": a.device, "dtype": a.dtype, "tf32": a.tf32, "images": a.images,
              "captions": a.captions, "top_k": a.top_k,
              "images_per_s": per_s(a.images, lambda: encode_images(images)),
              "captions_per_s": per_s(a.captions, lambda: encode_captions(ids)),
              "pairs_per_s": per_s(a.images * a.top_k, lambda: match(torch.cat(embeds)[:, None])),
              "peak_gib": held()}
    print(json.dumps(report))


main()
