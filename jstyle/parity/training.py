"""One LoRA training step through the trainer's own loss, checkpointing and optimiser."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..sd.lora import add_lora, remove_lora
from ..sd.pipeline import StableDiffusion
from ..sd.startup import jt
from .task import DECAY, RANK, RATE, Task, lora_values


def train_step(
    sd: StableDiffusion, task: Task, inputs: dict[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield "loss", "gradient/NAME" and "update/NAME" with their values; the model is then as
    before but for its frozen parameters."""
    from jdreambooth.checkpointing import checkpointed
    from jdreambooth.data import Batch
    from jdreambooth.loss import dreambooth_loss
    from jdreambooth.optimizer import AdamW

    for part in (sd.unet, sd.text_encoder, sd.vae):
        for parameter in part.parameters():
            parameter.stop_grad()
    lora = add_lora(sd.unet, RANK, RANK, "attention")
    try:
        parameters = lora.parameters()
        for name, var in parameters.items():
            var.assign(jt.array(lora_values(name, tuple(var.shape), task.seed)))
            var.start_grad()
        optimizer = AdamW(parameters, DECAY)
        t = np.array([task.timestep])
        batch = Batch(inputs["latent"], inputs["noise"], t, [task.prompt], 1)
        with checkpointed(sd.unet):
            loss, _ = dreambooth_loss(
                sd.unet, batch, jt.array(inputs["context"]), sd.schedule, 0.0, None
            )
            optimizer.backward(loss)
            jt.sync_all()
        yield "loss", loss.numpy().reshape(1)
        for name, gradient in zip(parameters, optimizer.gradients, strict=True):
            yield f"gradient/{name}", gradient.numpy()
        optimizer.step(RATE)
        for name, var in parameters.items():
            yield f"update/{name}", var.numpy()
    finally:
        remove_lora(sd.unet, lora)
