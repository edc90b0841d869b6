"""Rows and tasks as the student sees them, and how they become tokens.

One class, `Encoder`, serves training, evaluation and serving, so that a model is always asked the
way it was taught.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tutelage_student.errors import invalid


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; `role` is "system", "user" or "assistant"."""

    role: str
    content: str


@dataclass(frozen=True)
class Row:
    """One labelled example: text in `input`, or a conversation in `messages`."""

    id: str
    input: str = ""
    output: str = ""
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True)
class Task:
    """How a row becomes a prompt. `labels` is the closed set, empty for free text."""

    prompt_template: str
    labels: tuple[str, ...] = ()
    max_answer_tokens: int = 0
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.prompt_template.count("{input}") != 1:
            raise invalid(
                "task.prompt_template",
                f"contains {{input}} {self.prompt_template.count('{input}')} times",
                "write {input} exactly once, where the row's input goes",
            )
        if len(set(self.labels)) != len(self.labels) or any(not label for label in self.labels):
            raise invalid("task.labels", "empty or repeated names", "name every label once")
        if len(self.labels) == 1:
            raise invalid("task.labels", "only one label", "give at least two, or none")


class Encoder:
    """Turns rows of one task into token ids with one tokenizer."""

    def __init__(self, tokenizer: Any, task: Task) -> None:
        self.tokenizer = tokenizer
        self.task = task
        self.eos_id = int(tokenizer.eos_token_id)

    def prompt(self, row: Row) -> list[int]:
        """Token ids up to where the answer starts."""
        if row.messages:
            if not self.tokenizer.chat_template:
                raise invalid(
                    "rows.messages",
                    f"row {row.id!r} is a conversation but the model has no chat template",
                    "give `input`, or use a model with a chat template",
                )
            turns = [{"role": turn.role, "content": turn.content} for turn in row.messages]
            text = self.tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, tokenize=False
            )
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        text = self.task.prompt_template.replace("{input}", row.input)
        ids = list(self.tokenizer(text)["input_ids"])
        return ids[:-1] if ids and ids[-1] == self.eos_id else ids

    def answer(self, output: str, conversation: bool) -> list[int]:
        """Token ids of an answer, without the end of sequence.

        After a prompt template it starts with a space; a chat template leaves none to add.
        """
        text = output if conversation else " " + output
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def completion(self, row: Row) -> list[int]:
        """Token ids of the row's own answer, with the end of sequence: what training teaches."""
        return [*self.answer(row.output, bool(row.messages)), self.eos_id]

    @cached_property
    def _label_ids(self) -> dict[bool, list[list[int]]]:
        return {
            conversation: _prefix_free(
                [self.answer(label, conversation) for label in self.task.labels], self.eos_id
            )
            for conversation in (False, True)
        }

    def label_ids(self, conversation: bool) -> list[list[int]]:
        """Token ids of every label, as scored: with the end of sequence only where it is needed.

        If one label's tokens begin another's, the shorter would always look likelier; the end of
        sequence settles it. Elsewhere it would cost a token a label and change nothing: a trained
        student is sure of it.
        """
        return self._label_ids[conversation]

    def raw_text(self, ids: list[int]) -> str:
        """The text of these ids, without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))


def _prefix_free(labels: list[list[int]], eos_id: int) -> list[list[int]]:
    for first in labels:
        for second in labels:
            if first is not second and second[: len(first)] == first:
                return [[*ids, eos_id] for ids in labels]
    return labels
