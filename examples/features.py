"""The features of a picture and a phrase in PyTorch, from a model that `simla export authors` wrote.

  simla export authors runs/mine --output mine.pth
  python3 examples/features.py mine.pth runs/mine/vocabulary.json "a dog in the snow" dog.png

Prints the two features as JSON, and their similarity: what `simla embed` writes. Needs torch, numpy, Pillow and tokenizers.
"""
import argparse
import json
import re

import numpy
import torch
import torch.nn.functional as F
from PIL import Image
from tokenizers import Tokenizer


def linear(w, name, x):
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def norm(w, name, x, eps):
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)


def attend(q, k, v, heads):
    q, k, v = (t.view(1, -1, heads, t.shape[-1] // heads).transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def layers(w, prefix):
    return range(1 + max(int(name[len(prefix):].split(".")[0]) for name in w if name.startswith(prefix)))


def image_feature(w, path, heads):
    """The authors' test transform, the ViT, its [CLS] projected, of length one: [E]."""
    patch = w["visual_encoder.patch_embed.proj.weight"]
    side = int((w["visual_encoder.pos_embed"].shape[1] - 1) ** 0.5) * patch.shape[-1]
    pixels = numpy.asarray(Image.open(path).convert("RGB").resize((side, side), Image.BICUBIC), dtype="float32") / 255
    pixels = (pixels - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
    x = torch.from_numpy(pixels).float().permute(2, 0, 1)[None]
    x = F.conv2d(x, patch, w["visual_encoder.patch_embed.proj.bias"], stride=patch.shape[-1]).flatten(2).transpose(1, 2)
    x = torch.cat([w["visual_encoder.cls_token"], x], 1) + w["visual_encoder.pos_embed"]
    for i in layers(w, "visual_encoder.blocks."):
        name = f"visual_encoder.blocks.{i}"
        q, k, v = linear(w, f"{name}.attn.qkv", norm(w, f"{name}.norm1", x, 1e-6)).chunk(3, -1)
        x = x + linear(w, f"{name}.attn.proj", attend(q, k, v, heads))
        x = x + linear(w, f"{name}.mlp.fc2", F.gelu(linear(w, f"{name}.mlp.fc1", norm(w, f"{name}.norm2", x, 1e-6))))
    return F.normalize(linear(w, "vision_proj", norm(w, "visual_encoder.norm", x, 1e-6)[0, 0]), dim=0)


def text_feature(w, ids, heads):
    """BERT without its cross-attention, its [CLS] projected, of length one: [E]."""
    bert = "text_encoder.bert" if "text_encoder.bert.embeddings.LayerNorm.weight" in w else "text_encoder"
    x = w[f"{bert}.embeddings.word_embeddings.weight"][ids] + w[f"{bert}.embeddings.position_embeddings.weight"][:len(ids)]
    x = norm(w, f"{bert}.embeddings.LayerNorm", x[None], 1e-12)
    for i in layers(w, f"{bert}.encoder.layer."):
        name = f"{bert}.encoder.layer.{i}"
        q, k, v = (linear(w, f"{name}.attention.self.{part}", x) for part in ("query", "key", "value"))
        read = linear(w, f"{name}.attention.output.dense", attend(q, k, v, heads))
        x = norm(w, f"{name}.attention.output.LayerNorm", x + read, 1e-12)
        fed = linear(w, f"{name}.output.dense", F.gelu(linear(w, f"{name}.intermediate.dense", x)))
        x = norm(w, f"{name}.output.LayerNorm", x + fed, 1e-12)
    return F.normalize(linear(w, "text_proj", x[0, 0]), dim=0)


def pieces(text, vocabulary, closes, longest=25):
    """[CLS] and the phrase's word pieces, [SEP] behind them where the model reads one: the authors' own models do not."""
    text = re.sub(r"[,.'!?\"()*#:;~]", "", text.lower()).replace("-", " ").replace("/", " ").replace("<person>", "person")
    text = " ".join(re.sub(r"\s{2,}", " ", text).rstrip("\n").strip(" ").split(" ")[:30])
    special = vocabulary.token_to_id
    ids = vocabulary.encode(text, add_special_tokens=False).ids[:longest - 1 - closes]
    return [special("[CLS]"), *ids] + [special("[SEP]")] * closes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help=".pth of simla export authors")
    parser.add_argument("vocabulary", help="vocabulary.json of the run")
    parser.add_argument("phrase")
    parser.add_argument("image")
    parser.add_argument("--vision-heads", type=int, default=12)
    parser.add_argument("--text-heads", type=int, default=12)
    parser.add_argument("--no-closing-sep", action="store_true", help="of the authors' own weights")
    a = parser.parse_args()
    w = {name: tensor.float() if tensor.is_floating_point() else tensor
         for name, tensor in torch.load(a.weights, map_location="cpu", weights_only=True)["model"].items()}
    with torch.no_grad():
        image = image_feature(w, a.image, a.vision_heads)
        text = text_feature(w, pieces(a.phrase, Tokenizer.from_file(a.vocabulary), not a.no_closing_sep), a.text_heads)
    print(json.dumps({"similarity": float(image @ text), "image": image.tolist(), "text": text.tolist()}))


if __name__ == "__main__":
    main()
