import subprocess
import sys
from pathlib import Path

USE_OPTIMIZERS = """
import sys, torch
from ssl_platform.optim.larc import LARC
from ssl_platform.optim.torch_optimizers import AdamW
param = torch.nn.Parameter(torch.ones(3))
larc = LARC([param], 0.1, 0.9, 0.0, 0.001, 1e-8, False)
adamw = AdamW([param], lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0)
for optimizer in (larc, adamw):
    optimizer.zero_grad()
    param.sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
assert (param != 1).all()
sys.exit("torch._dynamo" in sys.modules)
"""


def test_a_step_does_without_torch_s_compiler():
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", USE_OPTIMIZERS], cwd=root, check=False)
    assert done.returncode == 0
