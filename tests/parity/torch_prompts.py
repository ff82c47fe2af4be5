"""Weighted prompts and composed guidance in PyTorch, written from what the syntax is defined to
mean: with transformers' tokenizer and text encoder and diffusers' UNet, one text at a time.

A text is a list of (words, weight), with BREAK between; nothing here reads brackets.
"""

from __future__ import annotations

import torch

BREAK = "break"
ROOM, NEAR = 75, 20


def chunks_of(pipe, text):
    """[(ids, weights)] of 75 each at most, without start, end and padding."""
    tokenizer = pipe.tokenizer
    comma = tokenizer.get_vocab().get(",</w>")
    chunks, now = [], []
    for item in text:
        if item == BREAK:
            chunks.append(now)
            now = []
            continue
        words, weight = item
        for token in tokenizer(words, add_special_tokens=False)["input_ids"]:
            if len(now) == ROOM:
                commas = [i for i, (seen, _) in enumerate(now) if seen == comma]
                near = commas and token != comma and ROOM - commas[-1] <= NEAR
                kept = commas[-1] + 1 if near else ROOM
                chunks.append(now[:kept])
                now = now[kept:]
            now.append((token, weight))
    return [*chunks, now] if now or not chunks else chunks


def context_of(pipe, stages, clip_skip=1):
    """Contexts (stages, tokens, dim) of all that one prompt says over a walk."""
    tokenizer, each = pipe.tokenizer, [chunks_of(pipe, text) for text in stages]
    columns = []
    for k in range(max(map(len, each))):
        ids, weights = [], []
        for chunks in each:
            chunk = chunks[k] if k < len(chunks) else []
            row = [tokenizer.bos_token_id, *(token for token, _ in chunk), tokenizer.eos_token_id]
            ids.append(row + [tokenizer.pad_token_id] * (ROOM + 2 - len(row)))
            own = [1.0, *(weight for _, weight in chunk)]
            weights.append(own + [1.0] * (ROOM + 2 - len(own)))
        said = pipe.text_encoder(torch.tensor(ids), output_hidden_states=True)
        z = said.last_hidden_state
        if clip_skip > 1:
            model = getattr(pipe.text_encoder, "text_model", pipe.text_encoder)
            z = model.final_layer_norm(said.hidden_states[-clip_skip])
        changed = z * torch.tensor(weights)[..., None]
        columns.append(changed * (z.mean() / changed.mean()))
    return torch.hstack(columns)


def composed_run(pipe, z, steps, guidance, told, against):
    """Latents after a DDIM walk. told, against: position -> [(weight, context)] and context."""
    pipe.scheduler.set_timesteps(steps)
    for i, t in enumerate(pipe.scheduler.timesteps):
        without = pipe.unet(z, t, against(i)).sample
        out = without.clone()
        for weight, context in told(i):
            out += guidance * weight * (pipe.unet(z, t, context).sample - without)
        z = pipe.scheduler.step(out, t, z).prev_sample
    return z
