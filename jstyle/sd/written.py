"""What weights and LoRAs can be written as. Imports nothing, so that help can say it."""

DTYPES = {"float16": ("F16", "<f2"), "float32": ("F32", "<f4")}  # in safetensors' words and NumPy's
LORA_FORMATS = ("diffusers", "kohya")
MODEL_FORMATS = ("diffusers", "checkpoint")
