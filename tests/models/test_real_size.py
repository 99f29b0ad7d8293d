"""A checkpoint of real 1B shapes, an eighth of the layers: loads within its size, and answers of one tile."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mini_internvl.linear_layers import has_half_products

MOST_MEMORY = 1.3
"""Peak memory while loading, over the size of the weights in the type they are used in."""

_PROGRAM = """
import json, resource, sys, time
import torch, transformers
from PIL import Image
import mini_internvl, mini_internvl.loading
from mini_internvl import GenerationSettings
from transformers import Qwen2ForCausalLM, Qwen2Tokenizer  # the libraries' own memory is not the weights'

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before, start = peak(), time.perf_counter()
model = mini_internvl.load(sys.argv[1], device="cpu")
for p in model.parameters():
    p.max()  # touches every page, since the file is mapped
loading, loaded = time.perf_counter() - start, peak()
picture = Image.linear_gradient("L").resize((2688, 896)).convert("RGB")
question = "Is there any moving object ahead of <c1,CAM_FRONT,714.3,503.6>? Please answer yes or no."
whole = model.prompt([picture], question)
prompt = model.prompt([picture], question, max_tiles=1)  # 13 tiles would take minutes of a small CPU
start = time.perf_counter()
answer = model.answer([prompt], GenerationSettings(max_new_tokens=2, min_new_tokens=2))[0]
print(json.dumps({
    "dtype": str(model.dtype), "whole": len(whole.tiles), "tiles": len(prompt.tiles),
    "visual": answer.visual_tokens,
    "new": answer.new_tokens, "load_s": loading, "answer_s": time.perf_counter() - start,
    "load_bytes": loaded - before, "before_bytes": before, "peak_bytes": peak(),
}))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_1b_checkpoint_loads_within_its_size_and_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Path(__file__).parent / "make_released_layout.py"
    subprocess.run([sys.executable, script, tmp_path / "InternVL2-1B", "3"], check=True, timeout=300)
    weights = tmp_path / "InternVL2-1B" / "model.safetensors"
    size = weights.stat().st_size
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, tmp_path / "InternVL2-1B"],
        capture_output=True,
        text=True,
        timeout=500,
        check=True,
    )
    weights.unlink()
    found = json.loads(done.stdout.splitlines()[-1])
    with capsys.disabled():
        print(
            f"\n{size / 1e9:.2f} GB of weights ({found['dtype']}) loaded in {found['load_s']:.1f} s "
            f"with {found['load_bytes'] / 1e9:.2f} GB ({found['load_bytes'] / size:.2f} times); "
            f"a question of {found['tiles']} tile answered in {found['answer_s']:.0f} s; "
            f"peak {found['peak_bytes'] / 1e9:.2f} GB, libraries {found['before_bytes'] / 1e9:.2f}"
        )
    native = has_half_products(torch.bfloat16)
    assert found["dtype"] == ("torch.bfloat16" if native else "torch.float32")
    assert (found["whole"], found["tiles"], found["visual"], found["new"]) == (13, 1, 256, 2)
    assert found["load_bytes"] <= MOST_MEMORY * size * (1 if native else 2)
