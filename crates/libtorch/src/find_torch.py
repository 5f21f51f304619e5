# Prints the folder of the installed torch package, or nothing. It does not import torch, which takes seconds.
import importlib.util
import sys

sys.path[:] = [folder for folder in sys.path if folder]  # a folder `torch` in the current one is not meant
torch = importlib.util.find_spec("torch")
if torch is not None and torch.submodule_search_locations:
    print(list(torch.submodule_search_locations)[0])
