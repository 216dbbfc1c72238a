"""Recipes: how a student is trained."""

from typing import Literal

from pydantic import Field

from qaserve.schemas.record import Record


class Recipe(Record):
    """How a student is trained.

    AdamW (Loshchilov & Hutter 2019) minimises the mean over rows of

        cosine_mse: L = c (1 - cos(s, t)) + (1 - c) mean((s - t)²),          c = cosine_share
        ranking:    r KL(softmax(t̂ Aᵀ/τ) ‖ softmax(ŝ Aᵀ/τ)) + (1 - r) L,     r = ranking_share, τ = its temperature

    for the student's output s and the teacher's t; a hat is a unit row and A are the answers (listwise distillation,
    Cao et al. 2007).
    """

    loss: Literal["cosine_mse", "ranking"] = "cosine_mse"
    epochs: int = Field(ge=1, le=10_000)
    batch: int = Field(32, ge=1)
    learning_rate: float = Field(gt=0)
    schedule: Literal["constant", "cosine"] = Field("constant", description="cosine: falls to 0 over the epochs.")
    weight_decay: float = Field(0.01, ge=0)
    dropout: float = Field(0.1, ge=0, lt=1, description="Of the transformer form.")
    patience: int = Field(0, ge=0, description="Stop after this number of epochs without a better cosine; 0: never.")
    validation: float = Field(0.1, gt=0, le=0.5, description="Share of the inputs kept for validation.")
    cosine_share: float = Field(0.7, ge=0, le=1)
    ranking_share: float = Field(0.5, ge=0, le=1)
    ranking_temperature: float = Field(0.05, gt=0)
    mixtures: int = Field(0, ge=0, le=100, description="Mixtures per input and epoch, new ones in each epoch.")


REFERENCE_RECIPE = Recipe(epochs=60, batch=64, learning_rate=3e-4)
"""Upstream's, for the proposal's plain student: 0.7 (1 - cos) + 0.3 MSE at the training questions, all 60 epochs.

The proposal itself names no recipe."""
OUR_RECIPE = Recipe(epochs=20, batch=64, learning_rate=1e-3, schedule="cosine", dropout=0.0, mixtures=2, patience=8)
"""For residual transformers: mixtures instead of dropout, and a falling learning rate."""
SLOTS_RECIPE = OUR_RECIPE.model_copy(update={"learning_rate": 1e-2})
"""For slots, which have no deep layers to upset and learn slowly below this rate."""
