"""What a corpus is called on the page. Its name is for addresses and files; the title is kept beside its builds."""

from contextlib import suppress
from pathlib import Path

from qaserve.common.errors import UsageError
from qaserve.common.files import written_beside
from qaserve.common.text import control_character
from qaserve.schemas.params import MAX_TITLE

FILE = "title.txt"


def read_title(models_dir: Path, corpus: str) -> str:
    """The title of a corpus; "" where none was given, or the file is damaged."""
    with suppress(FileNotFoundError, UnicodeDecodeError):
        return (models_dir / corpus / FILE).read_text(encoding="utf-8")[:MAX_TITLE]
    return ""


def check_title(title: str) -> None:
    """Raise UsageError where a title is too long or not one line."""
    if len(title) > MAX_TITLE or control_character(title) or "\n" in title:
        raise UsageError(f"a title is one line of at most {MAX_TITLE} characters", hint="Give a shorter one.")


def keep_title(models_dir: Path, corpus: str, title: str) -> None:
    """Write the title of a corpus. Raises UsageError, see `check_title`, and StoreWriteError."""
    check_title(title)
    with written_beside(models_dir / corpus / FILE) as fresh:
        fresh.write_text(title, encoding="utf-8")
