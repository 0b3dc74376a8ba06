"""JSON objects out of files that anybody may have written."""

from __future__ import annotations

import json
from pathlib import Path

from bids_brainlm.errors import DataError

KINDS = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "list",
}


def parse_object(path: Path, data: bytes) -> dict[str, object]:
    """Return the JSON object in a file's content.

    Parameters
    ----------
    path : Path
        For messages.
    data : bytes

    Returns
    -------
    dict

    Raises
    ------
    DataError
        It is not JSON, is nested too deeply, or is no object.
    """
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except RecursionError:
        found = "brackets within brackets without end"
        raise DataError(f"{path}: expected JSON, found {found}.") from None
    except ValueError as error:
        raise DataError(f"{path}: expected JSON, found: {error!s:.200}.") from error
    if not isinstance(content, dict):
        found = KINDS.get(type(content), "something else")
        raise DataError(f"{path}: expected a JSON object, found {found}.")
    return content
