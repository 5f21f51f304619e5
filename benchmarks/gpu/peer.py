"""The reference's benchmark on a GPU, with its memory counted as ours: what is no longer free of the GPU.

  python peer.py simla_reference.py bench --device cuda ...

Without this it reports the tensors alone, without what the allocator holds back and without loaded kernels. Needs: torch.
"""

import runpy
import sys

import torch

torch.zeros(1, device="cuda").add_(1).item()  # the context, which ours has as well before it counts
free = torch.cuda.mem_get_info()[0]
torch.cuda.max_memory_allocated = lambda *_: free - torch.cuda.mem_get_info()[0]
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
