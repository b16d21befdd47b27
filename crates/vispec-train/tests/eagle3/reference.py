"""Computes losses and gradients of EAGLE-3 training with PyTorch's autograd, for main.rs to compare.

    python crates/vispec-train/tests/eagle3/reference.py crates/vispec-train/tests/fixtures

Needs torch and safetensors. Every pass is written out row by row, without the kernels and layouts of
the trainer. Row i of pass k reads the embedding of token i + 1 + k and the output of pass k - 1. It
attends to the keys of pass 0 up to row i, and to its own keys of passes 1 to k.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

H, HEADS, KV, DIM, INNER, V = 24, 4, 2, 8, 40, 50
EPS, THETA, DECAY = 1e-5, 1000.0, 0.8


def norm(x, weight):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * weight


def rotate(x, position):
    """x: [heads, DIM]"""
    half = DIM // 2
    angles = position / THETA ** (torch.arange(half, dtype=torch.float64) / half)
    cos, sin = angles.cos().float(), angles.sin().float()
    a, b = x[:, :half], x[:, half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def attend(q, keys, values):
    """q: [HEADS, DIM]; keys and values: lists of [KV, DIM]"""
    keys, values = torch.stack(keys), torch.stack(values)
    out = []
    for head in range(HEADS):
        kv = head // (HEADS // KV)
        scores = keys[:, kv] @ q[head] / DIM**0.5
        out.append(scores.softmax(0) @ values[:, kv])
    return torch.cat(out)


class Draft:
    def __init__(self, seed, vocabulary, own_head, queries):
        g = torch.Generator().manual_seed(seed)
        shapes = {
            "fc.weight": (H, 3 * H),
            "midlayer.self_attn.q_proj.weight": (HEADS * DIM, 2 * H),
            "midlayer.self_attn.k_proj.weight": (KV * DIM, 2 * H),
            "midlayer.self_attn.v_proj.weight": (KV * DIM, 2 * H),
            "midlayer.self_attn.o_proj.weight": (H, HEADS * DIM),
            "midlayer.mlp.gate_proj.weight": (INNER, H),
            "midlayer.mlp.up_proj.weight": (INNER, H),
            "midlayer.mlp.down_proj.weight": (H, INNER),
            "midlayer.input_layernorm.weight": (H,),
            "midlayer.hidden_norm.weight": (H,),
            "midlayer.post_attention_layernorm.weight": (H,),
            "norm.weight": (H,),
        }
        if own_head:
            shapes["lm_head.weight"] = (len(vocabulary), H)
        if queries:
            shapes |= {
                "imadpt.q": (queries, HEADS, DIM),
                "imadpt.k_proj.weight": (HEADS * DIM, H),
                "imadpt.v_proj.weight": (HEADS * DIM, H),
                "imadpt.o_proj.weight": (H, HEADS * DIM),
                "img_fc.weight": (H, 2 * H),
            }
        self.w = {}
        for name, shape in shapes.items():
            value = torch.randn(shape, generator=g)
            value = 1 + 0.2 * value if "norm" in name else value / shape[-1] ** 0.5
            self.w[name] = value.requires_grad_()
        self.queries = queries

    def linear(self, name, x):
        return x @ self.w[f"{name}.weight"].T

    def compress(self, image):
        """[tokens, H] to [queries, H]"""
        keys = self.linear("imadpt.k_proj", image).view(-1, HEADS, DIM)
        values = self.linear("imadpt.v_proj", image).view(-1, HEADS, DIM)
        out = []
        for q in self.w["imadpt.q"]:
            heads = []
            for head in range(HEADS):
                scores = keys[:, head] @ q[head] / DIM**0.5
                heads.append(scores.softmax(0) @ values[:, head])
            out.append(self.linear("imadpt.o_proj", torch.cat(heads)))
        return torch.stack(out)

    def project(self, embed, hidden, position):
        x = torch.cat(
            [
                norm(embed, self.w["midlayer.input_layernorm.weight"]),
                norm(hidden, self.w["midlayer.hidden_norm.weight"]),
            ]
        )
        q, k, v = (self.linear(f"midlayer.self_attn.{n}_proj", x) for n in "qkv")
        return (
            rotate(q.view(HEADS, DIM), position),
            rotate(k.view(KV, DIM), position),
            v.view(KV, DIM),
        )

    def layer(self, hidden, attended):
        y = hidden + self.linear("midlayer.self_attn.o_proj", attended)
        n = norm(y, self.w["midlayer.post_attention_layernorm.weight"])
        gate, up = self.linear("midlayer.mlp.gate_proj", n), self.linear("midlayer.mlp.up_proj", n)
        return y + self.linear("midlayer.mlp.down_proj", torch.nn.functional.silu(gate) * up)

    def with_image(self, hidden, image):
        if not self.queries:
            return hidden
        return self.linear("img_fc", torch.cat([hidden, image]))

    def rows(self, sample):
        """(embedding, hidden, position, token or None, global image vector) of each row of pass 0"""
        rows, image, s = [], torch.zeros(H), 0
        mask = sample["image_mask"]
        while s < len(mask):
            if not (self.queries and mask[s]):
                hidden = self.linear("fc", sample["features"][s])
                rows.append((sample["embeds"][s], self.with_image(hidden, image), s, s, image))
                s += 1
                continue
            end = next((i for i in range(s, len(mask)) if not mask[i]), len(mask))
            out = self.compress(sample["embeds"][s:end])
            for i in range(self.queries - 1):
                place = max(end + i - (self.queries - 1), s)
                rows.append((out[i], out[i], place, None, image))
            image, s = out[-1], end
        return rows

    def outputs(self, sample, n_passes):
        """{(pass, target token): input of the head}; keys of later passes also have the row"""
        rows = self.rows(sample)
        first = [self.project(e, h, p) for e, h, p, _, _ in rows]
        found, z = {}, []
        for i, (_, hidden, _, token, _) in enumerate(rows):
            attended = attend(first[i][0], [r[1] for r in first[: i + 1]], [r[2] for r in first[: i + 1]])
            z.append(self.layer(hidden, attended))
            if token in sample["supervised"]:
                found[0, token] = z[i]
        for i, (_, _, position, token, image) in enumerate(rows):
            own, output = [], z[i]
            for k in range(1, n_passes):
                chain = rows[i : i + k + 1]
                steps = [token is not None and r[3] == token + n for n, r in enumerate(chain)]
                if len(chain) <= k or not all(steps):
                    break
                if not all(sample["answered"][token : token + k + 1]):
                    break
                hidden = self.with_image(output, image)
                q, key, value = self.project(chain[k][0], hidden, position + k)
                own.append((key, value))
                keys = [r[1] for r in first[: i + 1]] + [o[0] for o in own]
                values = [r[2] for r in first[: i + 1]] + [o[1] for o in own]
                output = self.layer(hidden, attend(q, keys, values))
                if token + k in sample["supervised"]:
                    found[k, token + k, i] = output
        return found


def make_sample(seed, length, answers, images, unlisted):
    g = torch.Generator().manual_seed(seed)
    answered = [any(a <= s < b for a, b in answers) for s in range(length)]
    return {
        "embeds": torch.randn(length, H, generator=g),
        "features": torch.randn(length, 3 * H, generator=g),
        "target": torch.randn(length, H, generator=g),
        "image_mask": [any(a <= s < b for a, b in images) for s in range(length)],
        "answered": answered,
        "supervised": [s for s in range(length) if answered[s] and s not in unlisted],
    }


def case(draft, samples, head, n_passes):
    per_pass = [[] for _ in range(n_passes)]
    right = [0, 0, 0]
    for sample in samples:
        for key, output in draft.outputs(sample, n_passes).items():
            x = norm(output, draft.w["norm.weight"])
            weight = draft.w.get("lm_head.weight", head)
            logits = weight @ x
            teacher = (head @ sample["target"][key[1]]).softmax(0)
            per_pass[key[0]].append(-(teacher * logits.log_softmax(0)).sum())
            if key[0] == 0:
                rank = (logits > logits[teacher.argmax()]).sum()
                right = [n + int(rank <= k) for k, n in enumerate(right)]
    means = [torch.stack(losses).mean() for losses in per_pass]
    loss = sum(DECAY**k * mean for k, mean in enumerate(means))
    loss.backward()
    return loss, means, [len(losses) for losses in per_pass], right


def main(out):
    g = torch.Generator().manual_seed(3)
    head = torch.randn(V, H, generator=g)
    vocabulary = sorted(torch.randperm(V, generator=g)[:20].tolist())
    listed = head[vocabulary]
    text = [make_sample(11, 9, [(3, 9)], [], {5}), make_sample(12, 12, [(2, 5), (7, 12)], [], {3, 8})]
    image = [
        make_sample(13, 16, [(8, 16)], [(1, 6)], {10}),
        make_sample(14, 15, [(3, 6), (10, 15)], [(7, 9)], set()),
    ]
    cases = {
        "own": (Draft(1, vocabulary, True, 0), text, 4),
        "target": (Draft(2, vocabulary, False, 0), text, 3),
        "vision": (Draft(5, vocabulary, False, 3), image, 3),
    }
    tensors = {"head": listed, "vocabulary": torch.tensor(vocabulary)}
    for name, (draft, samples, n_passes) in cases.items():
        loss, means, counts, right = case(draft, samples, listed, n_passes)
        print(name, loss.item(), [m.item() for m in means], counts, right)
        tensors[f"{name}.loss"] = loss.detach().view(1)
        tensors[f"{name}.means"] = torch.stack(means).detach()
        tensors[f"{name}.top"] = torch.tensor(right)
        for parameter, value in draft.w.items():
            tensors[f"{name}.weight.{parameter}"] = value.detach()
            tensors[f"{name}.gradient.{parameter}"] = value.grad
        for number, sample in enumerate(samples):
            for key, value in sample.items():
                value = value if torch.is_tensor(value) else torch.tensor(value).long()
                tensors[f"{name}.sample{number}.{key}"] = value
    save_file({k: v.clone().contiguous() for k, v in tensors.items()}, Path(out) / "eagle3.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
