"""Which row of a table is chosen, and how layers become a chart."""

import pandas as pd
import pytest

from ui.charts import chosen_row, layer, layered, number


@pytest.mark.parametrize(
    ("selection", "row"),
    [
        ({"rows": [], "columns": [], "cells": []}, None),
        ({"rows": [0], "columns": [], "cells": []}, 0),
        ({"rows": [], "columns": [], "cells": [(3, "cluster")]}, 3),
        ({"rows": []}, None),
    ],
)
def test_a_row_is_chosen_by_its_box_or_by_a_cell(selection, row):
    assert chosen_row({"selection": selection}) == row


def test_rows_stand_beside_the_chart_under_names_that_stay():
    def chart(*values):
        rows = pd.DataFrame({"x": values})
        elsewhere = layer({"url": "rows.json"}, "point", {"x": number("x")})
        return layered([layer(rows, "rule", {"x": number("x")}, size=2), elsewhere, layer(rows, "text", {})], 90)

    drawn, again = chart(1, 2), chart(3)
    assert [one["data"] for one in drawn["layer"]] == [{"name": "rows0"}, {"url": "rows.json"}, {"name": "rows2"}]
    assert drawn["layer"][0]["mark"] == {"type": "rule", "size": 2}
    assert {name: frame["x"].tolist() for name, frame in drawn["datasets"].items()} == {
        "rows0": [1, 2],
        "rows2": [1, 2],
    }
    assert {**drawn, "datasets": None} == {**again, "datasets": None}
