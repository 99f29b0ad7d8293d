"""Training of Mini-InternVL: domain adaptation, LoRA, vision distillation and the embedded model."""
