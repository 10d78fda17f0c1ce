import torch
from torch import nn
def default_device(): return 'cuda' if torch.cuda.is_available() else 'cpu'
def to_device(x, device):
    if torch.is_tensor(x): return x.to(device)
    if isinstance(x, (list, tuple)): return type(x)(to_device(o, device) for o in x)
    if isinstance(x, dict): return {k: to_device(v, device) for k,v in x.items()}
    return x
def conv(*a, **k): pass
