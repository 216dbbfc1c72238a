import pytest

from qaserve.common.errors import UsageError
from train.distillation.architectures import architectures, choose_architecture, parse_architecture
from train.distillation.training import Distilled, Epoch


@pytest.mark.parametrize(
    ("dimension", "clusters", "names"),
    [
        (768, 183, ["192x1", "16x2", "6x3", "4x4"]),
        (384, 139, ["192x1", "12x2", "6x3", "4x4"]),
        (12, 100, ["12x2", "6x3", "4x4"]),
        (12, 1, ["1x1", "1x2", "1x3", "1x4"]),
        (2, 1_000, []),
    ],
)
def test_architectures_have_the_capacity_with_the_fewest_heads(dimension, clusters, names):
    found = architectures(dimension, clusters)
    assert [spec.name for spec in found] == [f"{name} residual" for name in names]
    assert all(spec.capacity >= clusters for spec in found)
    assert [spec.parameters for spec in found] == sorted(spec.parameters for spec in found)


def distilled(spec, cosine):
    point = Epoch(train_loss=0.1, validation_cosine=cosine)
    return Distilled(
        spec=spec,
        weights=b"",
        epochs=1,
        best_epoch=1,
        train_loss=0.1,
        validation_cosine=cosine,
        curve=(point,),
        seconds=1,
    )


@pytest.mark.parametrize(("cosines", "layers"), [((0.979, 0.980, 0.9805), 1), ((0.97, 0.98, 0.981), 2)])
def test_the_smallest_of_the_best_students_is_chosen(cosines, layers):
    candidates = [distilled(spec, cosine) for spec, cosine in zip(architectures(12, 1), cosines, strict=False)]
    assert choose_architecture(candidates).spec.layers == layers
    assert choose_architecture(candidates[::-1]).spec.layers == layers


def test_nothing_cannot_be_chosen_from():
    with pytest.raises(ValueError, match="no student to choose from"):
        choose_architecture([])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("6x3", "6x3 residual"),
        ("6x3-residual", "6x3 residual"),
        ("12x2-plain", "12x2 plain"),
        ("slots-256", "slots 256"),
    ],
)
def test_architectures_are_read_from_their_short_form(text, name):
    assert parse_architecture(text, 384).name == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("big", "architecture 'big' is not known"),
        ("6x3-slots", "'6x3-slots' is not known"),
        ("slots-", "'slots-' is not known"),
        ("5x2", "'5x2' is not possible: 384 dimensions cannot be shared equally among 5 heads"),
        ("0x2", "'0x2' is not possible: heads: Input should be greater than or equal to 1"),
        ("6x99", "'6x99' is not possible: layers: Input should be less than or equal to 48"),
        ("slots-0", "'slots-0' is not possible: the form slots needs slots of 1 or more"),
    ],
)
def test_an_architecture_that_cannot_be_is_refused(text, message):
    with pytest.raises(UsageError, match=message) as caught:
        parse_architecture(text, 384)
    assert "6x3-plain" in caught.value.hint
    assert "slots-256" in caught.value.hint
