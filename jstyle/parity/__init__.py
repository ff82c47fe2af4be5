"""Two implementations of one model, compared from the single module to the finished picture.

`jstyle parity` gives the same weights, noise and inputs to this package and to diffusers on PyTorch
(in a process of its own), or to this package on two machines, and says where they part.

A recording is a folder of two halves, so that it can be answered and read without this package:

    task.json               what is to be computed: format, version, stages, steps, seed, rng,
                            prompt, size_px, timestep, and the model's source and fingerprint
    inputs.safetensors      the same inputs for everyone, float32 but for the int64 ids
        content, style      (1, 3, S, S) pictures in [-1, 1]
        ids, empty_ids      (1, tokens) of the prompt and of the empty prompt
        latent, noise       (1, 4, S / f, S / f) normal noise, f being the VAE's reduction
        context             (1, tokens, D) normal noise in place of an encoded prompt
    index.json              who answered (side, versions, device, dtype, peak_mib), and per stage
                            its seconds, its file and its entries in the order of computing, each
                            [name, name under which the file holds the values]
    STAGE.safetensors       float32 values, a name per tensor; what several entries share is there
                            once; the header is followed by spaces, since it is written last

Stages, and the names of their entries ("MODULE.in" and "MODULE.out" are a module's first tensor
argument and first result, in the order in which modules finish; a norm that is followed by SiLU is
taken after it; modules that only activate, drop or hold others are left out):

    text_encoder  every module of transformers' names before version 5 (text_model. ...); out
    vae_encode    blocks of the encoder; out, the moments of `content`
    vae_decode    blocks of the decoder; out, the picture of `latent`, not clipped
    unet          every module, for (`latent`, timestep, `context`); out
    step          prediction for (`latent`, first timestep of `steps`, encoded prompt); latent
    inversion     0000, 0001, ...: latents of `content` after each step, empty prompt
    sampling      0000, 0001, ...: latents from `latent` after each step, encoded prompt
    styleid       content, style (inverted latents), 0000, ... (sampling), image; gamma 0.75,
                  tau 1.5, the self-attentions of up_blocks.2 and up_blocks.3
    training      loss, gradient/NAME, update/NAME (the value after the step) of a LoRA on the
                  UNet's attention: rank 4, alpha 4, factors from task.lora_values, (`latent`,
                  `noise`, timestep, `context`), AdamW with rate 1e-4 and decay 0.01
"""
