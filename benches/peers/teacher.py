"""The PyTorch side of the speed comparison of teachers: transformers' Llama with gated LoRA linears of our own making.

    python teacher.py train|export --folder DIR --shape builtin [--form released] [--threads 1] [--repeats 1]

`bench-teacher prepare DIR SHAPE N` writes what is computed on: the model's folder, the micro-batches that our training draws (the same rows in
the same order, with prompts, answers, item vectors and encoder states) and the prompts of the export.

| WORK   | what is timed |
|--------|---------------|
| train  | all micro-batches but the first two: embedding with item vectors put in at the markers, linear gate, forward, loss, backward, Adam |
| export | one answer for each row: greedy, with a cache, in batches of rows of like length |

Two forms:
- `released`: as the released iLoRA does it. Each expert's numbers go through B before they are weighed ([B,S,E,out]); attention mask; logits of
  all places (labels given to the model); AdamW as PyTorch makes it by default; decoding to 64 tokens, since the released training knows no end.
- `lean`: what somebody who looks for speed writes in an hour. Inner numbers are weighed; no mask, since pads stand behind; logits of the places
  with a target alone; fused AdamW; a batch of answers ends with its longest title, as if every answer were right.
`--new N` decodes so many tokens in either form, 0 to the longest title of the batch.

Both train without the scoring head that our side trains as well, and neither grounds its answers in the catalogue: less work than ours.
One JSON line comes out.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

FORMS = ["released", "lean"]


def gated_linear_class():
    import torch
    from torch import nn

    class GatedLinear(nn.Module):
        """y = W x + (alpha/k) * sum_e g_e B[:,e] A[e,:] Dropout(x); the gate hangs on the model and is set for each batch."""

        def __init__(self, base, holder, form, lora, experts):
            super().__init__()
            self.base, self.holder, self.form = base, holder, form
            rank, self.experts = lora["rank"], experts
            self.scale = lora["alpha"] / (rank // experts)
            self.drop = nn.Dropout(lora["dropout"])
            self.a = nn.Parameter(torch.empty(rank, base.in_features))
            self.b = nn.Parameter(torch.zeros(base.out_features, rank))
            nn.init.kaiming_uniform_(self.a, a=5 ** 0.5)

        def forward(self, x):
            y = self.base(x)
            gate = self.holder["gate"]  # [B,E]
            inner = nn.functional.linear(self.drop(x), self.a)  # [B,S,R]
            if self.form == "released":
                b, s, r = inner.shape
                k = r // self.experts
                each = inner.view(b, s, self.experts, k)
                up = self.b.transpose(0, 1).reshape(self.experts, k, -1)  # [E,k,out]
                parts = torch.einsum("bsek,eko->bseo", each, up)
                return y + (parts * gate[:, None, :, None]).sum(2) * self.scale
            spread = gate.repeat_interleave(inner.shape[-1] // self.experts, 1)[:, None, :] * self.scale
            return y + nn.functional.linear(inner * spread, self.b)

    return GatedLinear


class Peer:
    def __init__(self, handed, form):
        import torch
        from torch import nn
        from transformers import AutoModelForCausalLM
        torch.manual_seed(1)
        self.form, self.handed = form, handed
        model = AutoModelForCausalLM.from_pretrained(handed["lm"], dtype=torch.float32, attn_implementation="sdpa")
        model.resize_token_embeddings(handed["vocab"], mean_resizing=False)
        model.requires_grad_(False)
        self.holder = {}
        made = gated_linear_class()
        for parent in list(model.model.layers.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(parent, name, made(child, self.holder, form, handed["lora"], handed["experts"]))
        self.model = model
        self.items = torch.tensor(handed["items"])
        width, d = model.config.hidden_size, self.items.shape[1]
        self.projector = nn.Sequential(nn.Linear(d, width), nn.GELU(), nn.Linear(width, width))
        self.gate = nn.Linear(len(handed["batches"][0]["rows"][0]["state"]), handed["experts"], bias=False)
        parts = (model, self.projector, self.gate)
        self.params = [p for part in parts for p in part.parameters() if p.requires_grad]

    def batch(self, rows, left, answers):
        """Padded ids [B,S], labels, mask, and where item vectors go."""
        import torch
        ids = [row["ids"] + (row["answer"] if answers else []) for row in rows]
        s = max(map(len, ids))
        out = {"ids": torch.zeros(len(ids), s, dtype=torch.long), "labels": torch.full((len(ids), s), -100),
               "mask": torch.zeros(len(ids), s, dtype=torch.long)}
        places, which = [], []
        for i, (row, own) in enumerate(zip(rows, ids)):
            start = s - len(own) if left else 0
            out["ids"][i, start:start + len(own)] = torch.tensor(own)
            out["mask"][i, start:start + len(own)] = 1
            if answers:
                out["labels"][i, len(row["ids"]):len(own)] = torch.tensor(row["answer"])
            for place, item in row["marks"]:
                places.append(i * s + start + place)
                which.append(item)
        out["marks"] = torch.tensor(places, dtype=torch.long), torch.tensor(which, dtype=torch.long)
        self.holder["gate"] = torch.softmax(self.gate(torch.tensor([row["state"] for row in rows])), -1)
        return out

    def embed(self, batch):
        embedded = self.model.get_input_embeddings()(batch["ids"])
        places, which = batch["marks"]
        if len(places):
            b, s, d = embedded.shape
            embedded = embedded.view(b * s, d).index_copy(0, places, self.projector(self.items[which])).view(b, s, d)
        return embedded

    def step(self, rows, adam, weight):
        import torch
        from torch.nn import functional as F
        batch = self.batch(rows, left=False, answers=True)
        embedded = self.embed(batch)
        if self.form == "released":
            loss = self.model(inputs_embeds=embedded, attention_mask=batch["mask"], labels=batch["labels"], use_cache=False).loss
        else:
            states = self.model.model(inputs_embeds=embedded, use_cache=False).last_hidden_state
            labels = batch["labels"][:, 1:]
            wanted = labels != -100
            loss = F.cross_entropy(self.model.lm_head(states[:, :-1][wanted]), labels[wanted])
        loss = loss * weight
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.params, self.handed["clip_norm"])
        adam.step()
        adam.zero_grad(set_to_none=True)
        return loss.item()

    def train(self):
        import torch
        self.model.train()
        fused = {"fused": True} if self.form == "lean" else {}
        adam = torch.optim.AdamW(self.params, lr=self.handed["lr"] / 20, weight_decay=0.0, **fused)
        losses, warm = [], self.handed["warm"]
        batches = self.handed["batches"]
        for i, batch in enumerate(batches):
            if i == warm:
                start, cpu = time.perf_counter(), time.process_time()
            losses.append(self.step(batch["rows"], adam, 1.0 if batch["choice"] else self.handed["open_lm_weight"]))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        timed = [row for batch in batches[warm:] for row in batch["rows"]]
        tokens = sum(len(row["ids"]) + len(row["answer"]) for row in timed)
        return {"seconds": seconds, "cpu_seconds": cpu, "steps": len(batches) - warm, "rows": len(timed), "tokens": tokens, "rows_per_s": len(timed) / seconds,
                "tokens_per_s": tokens / seconds, "first_loss": losses[0], "last_loss": losses[-1], "trained": sum(p.numel() for p in self.params)}

    def generate(self, rows):
        import torch
        from transformers import DynamicCache
        batch = self.batch(rows, left=True, answers=False)
        mask, new = batch["mask"], self.new or max(len(row["answer"]) for row in rows)
        cache, out = DynamicCache(config=self.model.config), []
        inputs = {"inputs_embeds": self.embed(batch)}
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        for _ in range(new):
            made = self.model(**inputs, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
            ids = made.logits[:, -1].argmax(-1, keepdim=True)
            out.append(ids)
            mask = torch.cat([mask, torch.ones_like(ids)], 1)
            positions = positions[:, -1:] + 1
            inputs = {"input_ids": ids}
        return torch.cat(out, 1)

    def export(self, n):
        import torch
        self.model.eval()
        # an even sample of the rows, which come sorted by length
        rows, size = self.handed["export"], self.handed["export_batch"]
        rows = rows[::max(len(rows) // n, 1)][:n] if n else rows
        with torch.inference_mode():
            self.generate(rows[:2])
            start, cpu, tokens = time.perf_counter(), time.process_time(), 0
            for at in range(0, len(rows), size):
                tokens += self.generate(rows[at:at + size]).numel()
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        return {"seconds": seconds, "cpu_seconds": cpu, "rows": len(rows), "rows_per_s": len(rows) / seconds, "generated": tokens}


def inner(args):
    import torch
    torch.set_num_threads(args.threads)
    import transformers
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    load = float(Path("/proc/loadavg").read_text().split()[0])
    peer = Peer(json.loads((args.folder / f"{args.shape}.json").read_text()), args.form)
    peer.new = {"released": 64, "lean": 0}[args.form] if args.new is None else args.new
    measured = peer.train() if args.work == "train" else peer.export(args.rows)
    result = {"work": args.work, "who": "peer", "form": args.form, "shape": args.shape, "threads": args.threads, "load": load,
              "torch": torch.__version__, "transformers": transformers.__version__,
              "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, **measured}
    print(json.dumps(result), flush=True)


def main():
    cli = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    cli.add_argument("work", choices=["train", "export"])
    cli.add_argument("--folder", type=Path, required=True, help="where bench-teacher prepared the work")
    cli.add_argument("--shape", default="builtin")
    cli.add_argument("--form", choices=FORMS, default="released")
    cli.add_argument("--threads", type=int, default=1)
    cli.add_argument("--rows", type=int, default=0, help="export so many of the rows, an even sample; 0: all")
    cli.add_argument("--new", type=int, help="tokens of an answer")
    cli.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    args = cli.parse_args()
    if args.inner:
        return inner(args)
    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "MKL_NUM_THREADS": str(args.threads)}
    return sys.exit(subprocess.run([sys.executable, __file__, "--inner", *sys.argv[1:]], env=env).returncode)


if __name__ == "__main__":
    main()
