"""What `qaserve bench finetuning` compares, its report, and how that is told in sentences, tables and plots."""

from collections.abc import Iterator, Sequence

from pydantic import Field

from qaserve.schemas.record import Record
from train.experiments.harness import (
    Difference,
    Plot,
    Result,
    Run,
    Table,
    compared,
    differences_table,
    draw_gains,
    results_table,
    signed,
    table,
    versus,
)
from train.experiments.routing_report import DEFAULT, RAW, TUNED

RAW_WORDS = "raw answers and words"
FINE_TUNED = "fine-tuned encoder"
FINE_TUNED_WORDS = "fine-tuned encoder and words"
FINE_TUNED_UNPROJECTED = "fine-tuned encoder with all that the product has but projection"
FINE_TUNED_PRODUCT = "the product on the fine-tuned encoder"
RIVALS = [FINE_TUNED, FINE_TUNED_WORDS, FINE_TUNED_UNPROJECTED]
COMPARED = {DEFAULT: RIVALS, TUNED: RIVALS, FINE_TUNED_PRODUCT: [*RIVALS, TUNED]}


class Cost(Record):
    """What a piece of work took."""

    cpu_seconds: float = Field(description="Of all threads of this process.")
    wall_seconds: float = Field(description="Includes waiting for other work on the machine.")


class Costs(Record):
    """What the parts took, each after the pairs were encoded once."""

    fitting: Cost = Field(description="The product: clusters, bank of W, whitening, words.")
    choosing: Cost = Field(description="Tuning the product's hyperparameters; a build may skip it.")
    training: Cost = Field(description="Fine-tuning the encoder.")
    encoding: Cost = Field(description="Encoding all answers again, which a changed encoder needs.")


class FinetuningRun(Run):
    """What came out for one encoder."""

    dimension: int
    pairs: int
    seeds: tuple[int, ...]
    epochs: int
    trained_on: float = Field(description="Pairs of the training side, mean over the seeds.")
    queries: float = Field(description="Held-out questions, mean over the seeds.")
    losses: tuple[float, ...] = Field(description="Training loss of each epoch, mean over the seeds.")
    costs: Costs = Field(description="Means over the seeds.")
    results: tuple[Result, ...]
    differences: tuple[Difference, ...]


# What is shown


def tables(run: FinetuningRun) -> list[Table]:
    """How well each method finds, the product against the fine-tuned encoder, and what it all took."""
    costs = {
        "fitting the product (clusters, W, whitening, words)": run.costs.fitting,
        "tuning its hyperparameters": run.costs.choosing,
        "fine-tuning the encoder": run.costs.training,
        "encoding all answers again": run.costs.encoding,
    }
    return [
        results_table(_caption(run), run.results),
        differences_table(f"{run.encoder}: the product against the fine-tuned encoder", run.differences),
        table(
            f"{run.encoder}: what it took, mean of the splits",
            costs.items(),
            {
                "work": lambda row: row[0],
                "CPU seconds": lambda row: f"{row[1].cpu_seconds:,.2f}",
                "seconds": lambda row: f"{row[1].wall_seconds:,.2f}",
            },
        ),
    ]


def _caption(run: FinetuningRun) -> str:
    return (
        f"{run.encoder} (D {run.dimension}), {run.pairs:,} pairs, {run.epochs} epochs over {run.trained_on:.0f} pairs, "
        f"mean of {len(run.seeds)} splits with {run.queries:.0f} held-out phrasings"
    )


def findings(run: FinetuningRun) -> Iterator[str]:
    """The differences and the costs in sentences."""
    for one in run.differences:
        yield (
            f"{one.method} against {one.reference}: {compared(one.gain)}, MRR "
            f"{one.base + one.gain.mean:.3f} and {one.base:.3f}, difference {signed(one.gain)}."
        )
    fitting, choosing, training = (
        cost.cpu_seconds for cost in (run.costs.fitting, run.costs.choosing, run.costs.training)
    )
    yield (
        f"fine-tuning took {training:,.0f} CPU seconds a split, fitting the product {fitting:.2f}: "
        f"{training / fitting:,.0f} times as much; with the tuning of the product's hyperparameters "
        f"({choosing:.1f} CPU seconds) {training / (fitting + choosing):,.0f} times as much."
    )


def in_short(run: FinetuningRun) -> Iterator[str]:
    """The product beside a fine-tuned encoder, alone and with the same evidence, and what that costs."""
    times = run.costs.training.cpu_seconds / run.costs.fitting.cpu_seconds
    said = {
        one.reference: (one.base + one.gain.mean, one.base, one.gain) for one in run.differences if one.method == TUNED
    }
    if FINE_TUNED in said:
        ours, theirs, gain = said[FINE_TUNED]
        told = versus("qaserve", ours, "a fine-tuned language model", theirs, gain)
        yield f"{told}. Fine-tuning took {times:,.0f} times as much computing as fitting qaserve."
    if FINE_TUNED_UNPROJECTED in said:
        ours, theirs, gain = said[FINE_TUNED_UNPROJECTED]
        also = "a fine-tuned language model with the same words, topics and whitening"
        yield f"{versus('qaserve', ours, also, theirs, gain)}."


def plots(runs: Sequence[FinetuningRun]) -> list[Plot]:
    """What each method gains over a search with the unchanged encoder."""
    title = "What every method gains in MRR over a plain search of the answers with the unchanged encoder"
    series = {one.encoder: one.results for one in runs}
    return [Plot("gains", title, lambda axes: draw_gains(axes, series, RAW))]


PREFACE = (
    "Hyperparameters are tuned on the training side with the unchanged encoder, those without projection for a search "
    "without it, and are the same on the fine-tuned one, which encodes topics anew too."
)
