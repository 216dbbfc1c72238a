"""`qaserve ask --interactive`: a prompt with history and completion."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from qaserve.cli.answering import Answerer
from qaserve.cli.base import err, parse_filters
from qaserve.cli.render_answer import show_answers, show_one, show_trace
from qaserve.cli.render_skill import show_skill
from qaserve.common.errors import QaserveError, UsageError
from qaserve.common.text import shorten
from qaserve.schemas.ask import Answer, AskRequest, AskResult, Filters
from qaserve.schemas.params import SHORT_NAMES, SearchParams, parameter_named

HELP = """Ask a question, or give a command:

  :why                 why the last answers came: votes, projection, plain search
  :open N              answer N in full, with its skills and source
  :skill NAME          a skill with its document; :skill N, that of answer N
  :set                 the parameters that are set
  :set NAME VALUE      set a parameter, for example :set tau 0.1
  :set NAME            back to the build's value
  :filter              what is filtered by
  :filter FIELD=VALUE  only pairs with this value; a second one of a field: or with that
  :filter FIELD        any value of this field again
  :help                this list
  :quit                leave; so does Ctrl-D

Up and down recall earlier questions; Tab completes them."""
COMMANDS = (":filter ", ":help", ":open ", ":quit", ":set ", ":skill ", ":why")
NAMES = (*SHORT_NAMES, *SearchParams.model_fields, "top_k")
HISTORY = "ask_history"
HISTORY_LINES = 1_000
PROMPT = "ask> "


class Prompt:
    """A conversation: questions and commands in, answers out."""

    def __init__(self, answering: Answerer, options: Mapping[str, Any], console: Console) -> None:
        """Begin one.

        Args:
            answering: Who answers.
            options: Parameters of every question, until `:set` changes them.
            console: Where answers are shown.
        """
        self._answering, self._console = answering, console
        self._options = {**options, "explain": True}
        self._last: AskResult | None = None
        self._commands: dict[str, Callable[[list[str]], None]] = {
            ":why": self._why,
            ":open": self._open,
            ":set": self._set,
            ":filter": self._filter,
            ":skill": self._skill,
            ":help": self._help,
        }

    def run(self, lines: Iterator[str]) -> None:
        """Take lines until there are no more, or one is `:quit`. An error ends only its own line."""
        for line in lines:
            if line.strip() in {":quit", ":q", ":exit"}:
                return
            try:
                self._take(line.strip())
            except QaserveError as error:
                self._console.print(Text(error.message, style="bold red"))
                if error.hint:
                    self._console.print(Text(error.hint, style="dim"))
            except KeyboardInterrupt:
                self._console.print("interrupted")

    def _take(self, line: str) -> None:
        if not line:
            return
        if not line.startswith(":"):
            self._ask(line)
            return
        name, *words = line.split()
        command = self._commands.get(name)
        if command is None:
            raise UsageError(f"there is no command {shorten(name, 40)!r}", hint=":help lists the commands.")
        command(words)

    def _ask(self, question: str) -> None:
        from qaserve.search.engine import checked_question

        request = AskRequest.model_validate({**self._options, "question": checked_question(question)})
        self._last = self._answering.ask(request)
        show_answers(self._console, self._last, in_full=1)

    def _asked(self) -> AskResult:
        if self._last is None:
            raise UsageError("no question has been answered yet", hint="Ask one first.")
        return self._last

    def _why(self, _: list[str]) -> None:
        show_trace(self._console, self._asked())

    def _open(self, words: list[str]) -> None:
        show_one(self._console, self._answer(" ".join(words), ":open"))

    def _answer(self, said: str, command: str) -> Answer:
        answers = self._asked().answers
        number = int(said) if said.isdecimal() else 0
        if not 1 <= number <= len(answers):
            raise UsageError(
                f"{command} {shorten(said, 40)}: this is not the number of an answer",
                hint=f"The last question has answers 1 to {len(answers)}." if answers else "It has no answer.",
            )
        return answers[number - 1]

    def _skill(self, words: list[str]) -> None:
        if len(words) != 1:
            raise UsageError(":skill takes a name", hint="The answers name their skills. For example: :skill NAME")
        name = words[0]
        if name.isdecimal():
            named = self._answer(name, ":skill").related_skills
            if not named:
                raise UsageError(f"answer {name} names no skill", hint="Try :skill NAME.")
            name = named[0]
        show_skill(self._console, self._answering.skill(name))

    def _set(self, words: list[str]) -> None:
        if words:
            self._change(words)
        given = {name: value for name, value in self._options.items() if name in NAMES}
        shown = ", ".join(f"{name} {value}" for name, value in given.items())
        self._console.print(Text(shown or "All parameters are the build's."))

    def _change(self, words: list[str]) -> None:
        name = parameter_named(words[0])
        if name not in NAMES or len(words) > 2:
            raise UsageError(
                f":set {shorten(' '.join(words), 60)}: this is not a parameter and a value",
                hint=f"Parameters: {', '.join(NAMES)}. For example: :set tau 0.1",
            )
        if len(words) == 1:
            self._options.pop(name, None)
            return
        try:
            read = AskRequest.model_validate({"question": "x", name: words[1]})
        except ValidationError as error:
            said = error.errors(include_url=False)[0]["msg"]
            raise UsageError(
                f":set {words[0]} {shorten(words[1], 40)}: {said}", hint="For example: :set tau 0.1"
            ) from error
        self._options[name] = getattr(read, name)

    def _filter(self, words: list[str]) -> None:
        said = " ".join(words)
        filters = dict(self._options.get("filters") or {})
        if said in Filters.model_fields:
            filters.pop(said, None)
        elif said:
            for field, values in parse_filters([said], Filters.model_fields, ":filter").items():
                filters[field] = (*filters.get(field, ()), *values)
        try:
            chosen = Filters.model_validate(filters)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]["msg"]
            raise UsageError(
                f":filter {shorten(said, 60)}: {problem}", hint="For example: :filter cluster=3"
            ) from error
        self._options["filters"] = chosen.given
        shown = (f"{field}={value}" for field, values in chosen.given.items() for value in values)
        self._console.print(Text(", ".join(shown) or "Nothing is filtered."))

    def _help(self, _: list[str]) -> None:
        self._console.print(Text(HELP))


def typed_lines(folder: Path) -> Iterator[str]:
    """Lines as they are typed, with history and completion on a terminal; without a prompt where there is no terminal.

    Args:
        folder: Where the history is kept, if it is there and can be written.
    """
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    with _line_editing(folder / HISTORY):
        err.print(Text("Ask a question. :help lists the commands, Ctrl-D leaves.", style="dim"))
        while True:
            try:
                yield input(PROMPT)
            except KeyboardInterrupt:
                print()
            except EOFError:
                print()
                return


@contextmanager
def _line_editing(history: Path) -> Iterator[None]:
    """Editing with Python's readline; plain input where this Python has none."""
    try:
        import readline
    except ModuleNotFoundError:
        yield
        return
    with suppress(OSError):
        readline.read_history_file(history)
    readline.set_history_length(HISTORY_LINES)
    readline.set_auto_history(True)
    readline.set_completer_delims("")

    def complete(text: str, state: int) -> str | None:
        items = [readline.get_history_item(number) for number in range(1, readline.get_current_history_length() + 1)]
        found = completions(text, items)
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    editline = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if editline else "tab: complete")
    try:
        yield
    finally:
        with suppress(OSError):  # no data folder, or not ours to write: the history ends with the session
            readline.write_history_file(history)
            history.chmod(0o600)


def completions(text: str, history: Sequence[str]) -> list[str]:
    """How a line may go on: commands and parameters after a colon, else earlier questions, the last one first."""
    if text.startswith(":set "):
        return [f":set {name} " for name in NAMES if name.startswith(text.removeprefix(":set "))]
    if text.startswith(":filter "):
        return [f":filter {name}=" for name in Filters.model_fields if name.startswith(text.removeprefix(":filter "))]
    if text.startswith(":"):
        return [command for command in COMMANDS if command.startswith(text)]
    start = text.casefold()
    asked = (item for item in reversed(history) if not item.startswith(":"))
    return list(dict.fromkeys(item for item in asked if item.casefold().startswith(start)))
