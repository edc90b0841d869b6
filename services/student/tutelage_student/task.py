"""Rows and tasks as the student sees them, and how they become tokens.

One class, `Encoder`, serves training, evaluation and serving, so that a model is always asked the
way it was taught.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jinja2.exceptions import TemplateError

from tutelage_student.errors import StudentError, invalid


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
    """How a row becomes a prompt. `labels` is the closed set, empty for free text.

    The model's chat template makes the prompt of a row that is a conversation; `prompt_template`
    may be empty where all rows are.
    """

    prompt_template: str
    labels: tuple[str, ...] = ()
    max_answer_tokens: int = 0
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.prompt_template and self.prompt_template.count("{input}") != 1:
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
            turns = [{"role": turn.role, "content": turn.content} for turn in row.messages]
            text = self._rendered(turns, f"row {row.id!r}")
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if not self.task.prompt_template:
            raise invalid(
                "task.prompt_template",
                f"empty, and row {row.id!r} is no conversation",
                "write the prompt, with {input} where the row's input goes",
            )
        text = self.task.prompt_template.replace("{input}", row.input)
        ids = list(self.tokenizer(text)["input_ids"])
        return ids[:-1] if ids and ids[-1] == self.eos_id else ids

    def _rendered(self, turns: list[dict[str, str]], where: str, is_prompt: bool = True) -> str:
        """The turns in the model's chat template; a prompt ends where the assistant begins."""
        if not self.tokenizer.chat_template:
            raise invalid(
                "rows.messages",
                f"{where} is a conversation but the model has no chat template",
                "give `input`, or use a model with a chat template",
            )
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    turns, add_generation_prompt=is_prompt, tokenize=False
                )
            )
        except TemplateError as error:
            roles = ", ".join(turn["role"] for turn in turns)
            raise invalid(
                "rows.messages",
                f"the model's chat template refuses {where} with the roles {roles}: {error}",
                "give conversations that it takes, or use another model",
            ) from error

    @cached_property
    def _turn_frame(self) -> tuple[str, int]:
        """What the chat template puts between prompt and answer, and the token that ends a turn.

        Many templates end a turn with a token of their own (<|im_end|>, <end_of_turn>), which is
        not always the end of sequence: where it is not, a student that is taught the latter would
        be asked in a form that the model has never seen.
        """
        asked = [{"role": "user", "content": "Hello"}]
        try:
            prompt = self._rendered(asked, "a greeting")
            mark = "answer"
            whole = self._rendered(
                [*asked, {"role": "assistant", "content": mark}], "a greeting", is_prompt=False
            )
        except StudentError:
            # No template, or one that wants more than a greeting: rows say so themselves.
            return "", self.eos_id
        lead, _, after = whole.removeprefix(prompt).partition(mark)
        ids = self.tokenizer(after, add_special_tokens=False)["input_ids"]
        special = {*self.tokenizer.all_special_ids} | {
            token for token, added in self.tokenizer.added_tokens_decoder.items() if added.special
        }
        end = next((token for token in ids if token in special), self.eos_id)
        return (lead if whole.startswith(prompt) else ""), int(end)

    def end_id(self, conversation: bool) -> int:
        """The token that ends an answer in training."""
        return self._turn_frame[1] if conversation else self.eos_id

    def ends(self, token: int, conversation: bool) -> bool:
        """Whether a generated answer ends before this token."""
        return token in (self.eos_id, self.end_id(conversation))

    def answer(self, output: str, conversation: bool) -> list[int]:
        """Token ids of an answer, without the token that ends it.

        After a prompt template it starts with a space; in a conversation with whatever the chat
        template puts there, which also trims: an answer is never framed by white space.
        """
        text = self._turn_frame[0] + output.strip() if conversation else " " + output
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def completion(self, row: Row) -> list[int]:
        """Token ids of the row's own answer, with the token that ends it: what training teaches."""
        conversation = bool(row.messages)
        return [*self.answer(row.output, conversation), self.end_id(conversation)]

    @cached_property
    def _label_ids(self) -> dict[bool, list[list[int]]]:
        return {
            conversation: _prefix_free(
                [self.answer(label, conversation) for label in self.task.labels],
                self.end_id(conversation),
            )
            for conversation in (False, True)
        }

    def label_ids(self, conversation: bool) -> list[list[int]]:
        """Token ids of every label, as scored: with the token that ends it only where it is needed.

        If one label's tokens begin another's, the shorter would always look likelier; the end
        settles it. Elsewhere it would cost a token a label and change nothing: a trained
        student is sure of it.
        """
        return self._label_ids[conversation]

    def raw_text(self, ids: list[int]) -> str:
        """The text of these ids, without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))


def _prefix_free(labels: list[list[int]], end_id: int) -> list[list[int]]:
    for first in labels:
        for second in labels:
            if first is not second and second[: len(first)] == first:
                return [[*ids, end_id] for ids in labels]
    return labels
