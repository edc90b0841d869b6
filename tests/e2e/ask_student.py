"""Asks a student taken home, with nothing but transformers and peft.

`python ask_student.py BASE_FOLDER STUDENT_FOLDER` reads {"prompt": …, "labels": […]} from
standard input and prints the probability of each label.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base, home = sys.argv[1:]
asked = json.load(sys.stdin)
adapter = next(Path(home).rglob("adapter_config.json"), None)
if adapter is not None:
    network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    network = PeftModel.from_pretrained(network, str(adapter.parent))
else:
    whole = next(Path(home).rglob("config.json")).parent
    network = AutoModelForCausalLM.from_pretrained(whole, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(base)

prompt = tokenizer(asked["prompt"])["input_ids"]
scores = []
for label in asked["labels"]:
    answer = tokenizer(" " + label, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        logits = network(torch.tensor([prompt + answer])).logits[0]
    steps = logits[len(prompt) - 1 : -1].log_softmax(-1)
    scores.append(steps.gather(1, torch.tensor(answer)[:, None]).sum())
probabilities = torch.stack(scores).softmax(0).tolist()
print(json.dumps(dict(zip(asked["labels"], probabilities, strict=True))))
