"""Which row of a table is chosen."""

import pytest

from ui.charts import chosen_row


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
