"""The transformers + peft side of the speed comparison of language models, and the maker of the models.

    python lm.py make  --shape llama_100m --dtype f32 --folder DIR
    python lm.py WORK  --shape llama_100m --dtype f32 --folder DIR [--threads 2]

| WORK         | what is timed |
|--------------|---------------|
| forward      | logits of every place of 4 rows of 128 tokens (--rows, --length), no gradients |
| train        | one step on those rows: forward, next-token loss, backward, AdamW; LoRA of rank 8 on all linears but the output layer |
| decode_1     | seconds a token, greedy, cached, one row, behind a prompt of 32 tokens: a call for 1 + N tokens less a call for 1 |
| decode_8     | the same with eight rows; a token of every row counts |
| load         | from the folder (page cache warm) to the model object; `first_token_seconds` goes on to the logits of one token |
| limit        | GFLOP/s of matrix products in f32 and bf16, GB/s of reading memory |

The peer in its fastest usual form: sdpa attention, no gradient checkpointing, dropout 0, fused AdamW, inference mode, adapters as peft makes them (in f32
on a bf16 base). Decoding has two forms: `generate` is model.generate, which does what our `generate` does; `loop` is a bare loop over the
model with its DynamicCache and argmax, without stop conditions or processors.

Weights are random (seed 1) with the proportions of real models, in files of the type they are computed in. One JSON line comes out; `seconds` is
the median of the repetitions inside the process. `peak_rss_mb` is getrusage of the process at the end of the work, `import_rss_mb` what
importing torch, transformers and peft alone takes. Threads: OMP, MKL and torch all get --threads.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

WORKS = ["forward", "train", "decode_1", "decode_8", "load", "limit"]
# architecture, sizes; the embedding is the output layer too, as in Llama-3.2-1B and the small Qwen2 models
SHAPES = {
    "llama_100m": ("llama", dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, num_key_value_heads=4, intermediate_size=2048,
                                 vocab_size=32000)),
    "qwen2_33m": ("qwen2", dict(hidden_size=512, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=2, intermediate_size=1536,
                                vocab_size=16384)),
}
B, S, PROMPT, NEW = 4, 128, 32, 48  # --rows, --length: another B and S
RANK, ALPHA, LR = 8, 16, 1e-4


def peak_rss_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def token_ids(rows, length, vocab):
    """The same ids here and in bench-lm."""
    return [[(1000003 * (r * length + i + 1) + 12345) % 1000000007 % vocab for i in range(length)] for r in range(rows)]


def make(args):
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
    family, sizes = SHAPES[args.shape]
    config_class, model_class = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}[family]
    torch.manual_seed(1)
    config = config_class(**sizes, tie_word_embeddings=True, max_position_embeddings=2048, bos_token_id=None, eos_token_id=None, pad_token_id=None,
                          attention_dropout=0.0)
    model = model_class(config)
    if args.dtype == "bf16":
        model = model.to(torch.bfloat16)
    model.generation_config.eos_token_id = None
    model.save_pretrained(args.folder)
    # bytes first, then words that no text of ours has: ids of random weights decode to something
    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for i in range(len(vocab), sizes["vocab_size"]):
        vocab[f"w{i}"] = i
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.save(str(args.folder / "tokenizer.json"))


def repeated(body, repeats):
    """Median seconds of `body`, after one call for warmth; with 0 repeats those of the first call."""
    if repeats:
        body()
    seconds = []
    for _ in range(max(repeats, 1)):
        start = time.perf_counter()
        body()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def load(args, dtype):
    from transformers import AutoModelForCausalLM
    return AutoModelForCausalLM.from_pretrained(args.folder, dtype=dtype, attn_implementation="sdpa")


def forward(model, rows, args):
    import torch
    with torch.inference_mode():
        return {"seconds": repeated(lambda: model(rows, use_cache=False).logits, args.repeats), "tokens": rows.numel()}


def train(model, rows, args):
    import torch
    from peft import LoraConfig, get_peft_model
    torch.manual_seed(2)
    model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")).train()
    params = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(params, lr=LR, weight_decay=0.0, fused=True)
    losses = []

    def step():
        loss = model(input_ids=rows, labels=rows, use_cache=False).loss
        loss.backward()
        adam.step()
        adam.zero_grad(set_to_none=True)
        losses.append(loss.item())

    seconds = repeated(step, args.repeats)
    return {"seconds": seconds, "tokens": rows.numel(), "first_loss": losses[0], "last_loss": losses[-1], "trained": sum(p.numel() for p in params)}


def decode(model, n_rows, args):
    import torch
    prompt = torch.tensor(token_ids(n_rows, PROMPT, model.config.vocab_size))
    mask = torch.ones_like(prompt)
    model.generation_config.pad_token_id = 0

    def generate(n):
        return model.generate(prompt, attention_mask=mask, do_sample=False, max_new_tokens=n, min_new_tokens=n, use_cache=True)

    def loop(n):
        from transformers import DynamicCache
        cache, ids, out = DynamicCache(config=model.config), prompt, [prompt]
        for _ in range(n):
            logits = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            ids = logits[:, -1].argmax(-1, keepdim=True)
            out.append(ids)
        return torch.cat(out, 1)

    body = {"generate": generate, "loop": loop}[args.form]
    with torch.inference_mode():
        longer, one = repeated(lambda: body(1 + NEW), args.repeats), repeated(lambda: body(1), args.repeats)
        ids = body(1 + NEW)[0, PROMPT:].tolist()
    return {"seconds": (longer - one) / NEW, "tokens": n_rows, "prompt_seconds": one, "first_ids": ids[:12]}


def limit(args):
    import torch
    gflops, a = {}, torch.randn
    for dtype, name in ((torch.float32, "f32"), (torch.bfloat16, "bf16")):
        for m, k, n in ((2048, 2048, 2048), (512, 768, 2048)):
            if name == "bf16" and m == 2048:
                continue
            x, w = a(m, k, dtype=dtype), a(n, k, dtype=dtype)
            gflops[f"{name} {m}x{k}x{n}"] = round(2e-9 * m * k * n / repeated(lambda: torch.nn.functional.linear(x, w), 5), 1)
    big = torch.ones(128 << 20)
    return {"gflops": gflops, "read_gb_s": round(big.numel() * 4e-9 / repeated(big.sum, 5), 1)}


def inner(args):
    import torch
    torch.set_num_threads(args.threads)
    result = {"work": args.work, "who": "peer", "rows": args.rows, "length": args.length, "form": args.form, "shape": args.shape, "dtype": args.dtype, "threads": args.threads,
              "load": float(Path("/proc/loadavg").read_text().split()[0]), "torch": torch.__version__}
    if args.work == "limit":
        result.update(limit(args))
        print(json.dumps(result), flush=True)
        return
    import peft
    import transformers
    from transformers import AutoModelForCausalLM  # noqa: F401  (the lazy import belongs to the start, not to the load)
    import transformers.models.llama.modeling_llama  # noqa: F401
    import transformers.models.qwen2.modeling_qwen2  # noqa: F401
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    result.update(transformers=transformers.__version__, peft=peft.__version__, import_rss_mb=round(peak_rss_mb(), 1))
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    if args.work == "load":
        for file in args.folder.iterdir():  # the page cache
            file.read_bytes()
    start = time.perf_counter()
    model = load(args, dtype).eval()
    seconds = time.perf_counter() - start
    if args.work == "load":
        with torch.inference_mode():
            model(torch.tensor([[1]])).logits.sum().item()
        result.update(seconds=seconds, first_token_seconds=time.perf_counter() - start)
    else:
        rows = torch.tensor(token_ids(args.rows, args.length, model.config.vocab_size))
        result.update({"forward": lambda: forward(model, rows, args), "train": lambda: train(model, rows, args),
                       "decode_1": lambda: decode(model, 1, args), "decode_8": lambda: decode(model, 8, args)}[args.work]())
    result["parameters"] = sum(p.numel() for p in model.parameters() if args.work != "train" or not p.requires_grad)
    result["peak_rss_mb"] = round(peak_rss_mb(), 1)
    print(json.dumps(result), flush=True)


def main():
    cli = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    cli.add_argument("work", choices=["make", *WORKS])
    cli.add_argument("--shape", choices=list(SHAPES), default="llama_100m")
    cli.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    cli.add_argument("--form", choices=["generate", "loop"], default="generate", help="of decoding")
    cli.add_argument("--folder", type=Path, help="the model's folder")
    cli.add_argument("--repeats", type=int, default=3, help="inside the process, after one call for warmth; 0: the first call, for what takes minutes")
    cli.add_argument("--rows", type=int, default=B, help="of a batch of forward and train")
    cli.add_argument("--length", type=int, default=S, help="tokens of such a row")
    cli.add_argument("--threads", type=int, default=2)
    cli.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    args = cli.parse_args()
    if args.folder is None and args.work != "limit":
        raise SystemExit("give the model's folder with --folder")
    if args.work == "make":
        return make(args)
    if args.inner:
        return inner(args)
    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "MKL_NUM_THREADS": str(args.threads)}
    return sys.exit(subprocess.run([sys.executable, __file__, "--inner", *sys.argv[1:]], env=env).returncode)


if __name__ == "__main__":
    main()
