"""Predictions: scores of a closed label set, or generated text."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tutelage_student.activations import ActivationCache
from tutelage_student.errors import invalid
from tutelage_student.model import Model
from tutelage_student.packing import KeyValueCache, Layout
from tutelage_student.probe import Probe, features
from tutelage_student.questions import BATCH_TOKENS, Prediction, Question, ask, batches
from tutelage_student.task import Encoder, Row, Task

# Whose logits are computed together: 64 in float32 take 13 MB, 600 of a batch would 118 MB.
LOGIT_POSITIONS = 64
# Of one batch of answers that are written, at their longest: each token reads all weights once, so
# more rows cost little more, until keys and values take too much memory.
WRITTEN_TOKENS = 8192
WRITTEN_ROWS = 64
DEFAULT_ANSWER_TOKENS = 256


@dataclass(frozen=True)
class Decoding:
    """How answers are generated. temperature 0 is greedy; top_p 0 and 1 mean all tokens."""

    temperature: float = 0.0
    top_p: float = 0.0
    max_new_tokens: int = 0
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 100:
            raise invalid("decoding.temperature", f"{self.temperature}", "use 0 to 100")
        if not 0 <= self.top_p <= 1:
            raise invalid("decoding.top_p", f"{self.top_p}", "use 0 to 1")
        if self.max_new_tokens < 0:
            raise invalid("decoding.max_new_tokens", f"{self.max_new_tokens}", "use 0 or more")
        if any(not text for text in self.stop):
            raise invalid("decoding.stop", "an empty text", "give non-empty texts")


@dataclass(frozen=True)
class LabelTree:
    """Labels as a tree of tokens under the end of the prompt.

    tokens, parents: of the nodes that must be read to score what follows them; a parent of -1 is
    the prompt's last token, as is node -1. depths: distance from it. steps: for each label, the
    (node, token) pairs whose log-probabilities add up to the label's.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    depths: tuple[int, ...]
    steps: tuple[tuple[tuple[int, int], ...], ...]

    def packed(
        self, model: Model, sequences: Sequence[Sequence[int]]
    ) -> tuple[Tensor, Tensor, Layout]:
        """As `Model.packed`, for prompts followed by `tokens`.

        Each node sees the prompt and its own ancestors only, and stands where it would stand if
        its label alone followed.
        """
        ids, positions, layout = model.packed(sequences)
        nodes = len(self.tokens)
        if not nodes:
            return ids, positions, layout
        sees = torch.zeros(nodes, nodes, dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                sees[node] = sees[parent]
            sees[node, node] = True
        causal = torch.ones(layout.longest, layout.longest, dtype=torch.bool).tril()
        mask = causal.repeat(layout.rows, 1, 1)
        placed = []
        for row, sequence in enumerate(sequences):
            prompt, end = len(sequence) - nodes, len(sequence)
            mask[row, prompt:end, prompt:end] = sees
            placed += [torch.arange(prompt), torch.tensor(self.depths) + prompt - 1]
        layout = replace(layout, mask=mask[:, None].to(model.device))
        return ids, torch.cat(placed).to(model.device), layout


def label_tree(labels: Sequence[Sequence[int]]) -> LabelTree:
    """The tree of these labels' token ids; labels that begin alike share nodes."""
    nodes: dict[tuple[int, ...], int] = {(): -1}
    tokens: list[int] = []
    parents: list[int] = []
    depths: list[int] = []
    steps: list[tuple[tuple[int, int], ...]] = []
    for label in labels:
        path = []
        for depth, token in enumerate(label):
            before = tuple(label[:depth])
            if before not in nodes:
                nodes[before] = len(tokens)
                tokens.append(before[-1])
                parents.append(nodes[before[:-1]])
                depths.append(depth)
            path.append((nodes[before], token))
        steps.append(tuple(path))
    return LabelTree(tuple(tokens), tuple(parents), tuple(depths), tuple(steps))


def score_labels(
    model: Model,
    rows: Sequence[Row],
    task: Task,
    weights: object | None = None,
    *,
    activations: ActivationCache | None = None,
    pause: Callable[[], None] | None = None,
) -> list[Prediction]:
    """Scores every label of the closed set for every row; answers in the rows' order.

    A row's prompt is read once: the labels follow it as a tree, in the same forward pass. When all
    labels are one token long that is the prompt alone.

    weights: a student's, None for the base model. activations: used where the student's lower
    layers are frozen, shared over students. pause: called between batches, when the model
    may be used for something else; an exception from it ends the job.
    A probe answers from the prompt alone.
    """
    if not task.labels:
        raise invalid("task.labels", "no closed label set", "name the labels, or generate")
    encoder = Encoder(model.tokenizer, task)
    trees = {kind: label_tree(encoder.label_ids(kind)) for kind in (False, True)}
    longest = {
        kind: max((len(ids) for ids in encoder.label_ids(kind)), default=1) for kind in trees
    }
    questions, results = ask(model, encoder, rows, lambda row: longest[bool(row.messages)])

    def keep(batch: Sequence[Question], scores: Tensor) -> None:
        for question, values in zip(batch, scores.tolist(), strict=True):
            results[question.index] = Prediction.of_labels(question.row.id, task.labels, values)
        if pause:
            pause()

    if isinstance(weights, Probe):
        for batch in batches(questions, 0, BATCH_TOKENS):
            keep(batch, weights.log_probabilities(features(model, batch), task.labels))
        return [results[index] for index in range(len(rows))]
    for kind, tree in trees.items():
        chosen = [question for question in questions if bool(question.row.messages) == kind]
        for batch in batches(chosen, len(tree.tokens), BATCH_TOKENS):
            with torch.inference_mode(), model.wearing(weights):
                scores = _tree_scores(model, batch, tree, weights, activations)
            keep(batch, scores)
    return [results[index] for index in range(len(rows))]


def _tree_scores(
    model: Model,
    batch: Sequence[Question],
    tree: LabelTree,
    weights: object | None,
    activations: ActivationCache | None,
) -> Tensor:
    """`[rows, labels]` log-probabilities, normalised over the labels."""
    sequences = [[*question.prompt, *tree.tokens] for question in batch]
    ids, positions, layout = tree.packed(model, sequences)
    first_layer = getattr(weights, "first_layer", 0)
    # Per row, the prompt's last token (node -1) and the tree's nodes.
    nodes = len(tree.tokens) + 1
    ends = torch.tensor([len(sequence) for sequence in sequences]).cumsum(0)
    where = (ends[:, None] - nodes + torch.arange(nodes)).flatten().to(model.device)
    if first_layer and activations is not None:
        below = activations.batch(model, first_layer, sequences, tree)
        hidden = model.hidden(
            layout, positions, inputs=below, first_layer=first_layer, wanted=where
        )
    else:
        hidden = model.hidden(layout, positions, ids=ids, wanted=where)
    # Of the whole vocabulary only the labels' tokens are kept.
    asked = sorted({token for path in tree.steps for _, token in path})
    kept = torch.tensor(asked, device=model.device)
    values = torch.cat(
        [
            model.logits(part).log_softmax(-1).index_select(-1, kept)
            for part in torch.split(hidden, LOGIT_POSITIONS)
        ]
    ).view(len(batch), nodes, -1)
    scores = []
    for path in tree.steps:
        at = torch.tensor([node + 1 for node, _ in path], device=model.device)
        which = torch.tensor([asked.index(token) for _, token in path], device=model.device)
        scores.append(values[:, at, which].sum(-1))
    return torch.stack(scores, -1).log_softmax(-1)


def generate(
    model: Model,
    rows: Sequence[Row],
    task: Task,
    weights: object | None = None,
    decoding: Decoding | None = None,
    *,
    pause: Callable[[], None] | None = None,
) -> list[Prediction]:
    """Continues every row's prompt; answers in the rows' order.

    An answer ends with the token that ends answers, before a stop text, after `max_new_tokens`, or
    where the context is full. Each row draws from its own stream, seeded by (decoding.seed, row
    id), so that the company it is answered in changes nothing. The log-probability is that of the
    kept tokens, the one that ended the answer included. pause: as in `score_labels`, between
    tokens.
    """
    if isinstance(weights, Probe):
        raise invalid(
            "decoding.score_labels",
            "not set, and the checkpoint is a probe, which writes no text",
            "set it, or ask a lora or full student",
        )
    decoding = decoding or Decoding()
    most = decoding.max_new_tokens or task.max_answer_tokens or DEFAULT_ANSWER_TOKENS
    most = min(most, model.context_tokens)
    encoder = Encoder(model.tokenizer, task)
    questions, results = ask(model, encoder, rows, lambda _row: 1)
    for batch in batches(questions, most, WRITTEN_TOKENS, WRITTEN_ROWS):
        with torch.inference_mode(), model.wearing(weights):
            for question, text, log_probability in _continue(
                model, encoder, batch, decoding, most, pause
            ):
                results[question.index] = Prediction(question.row.id, text, log_probability)
    return [results[index] for index in range(len(rows))]


def _row_stream(seed: int, row_id: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}\n{row_id}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@dataclass
class _Answer:
    """An answer being written. cut: its text where a stop text ended it."""

    question: Question
    stream: torch.Generator
    ids: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    cut: str | None = None
    done: bool = False


def _continue(
    model: Model,
    encoder: Encoder,
    batch: Sequence[Question],
    decoding: Decoding,
    most: int,
    pause: Callable[[], None] | None,
) -> list[tuple[Question, str, float]]:
    ids, positions, layout = model.packed([question.prompt for question in batch])
    lengths = torch.tensor([len(question.prompt) for question in batch], device=model.device)
    cache = KeyValueCache(lengths, int(lengths.max()) + most, {}, {})
    layout.cache = cache
    hidden = model.hidden(layout, positions, ids=ids, wanted=lengths.cumsum(0) - 1)
    logits = model.logits(hidden)
    answers = [_Answer(question, _row_stream(decoding.seed, question.row.id)) for question in batch]
    open_answers = answers
    while True:
        last = _choose(logits, open_answers, decoding)
        for answer, token in zip(open_answers, last, strict=True):
            room = model.context_tokens - len(answer.question.prompt)
            _append(answer, token, encoder, decoding, min(most, room))
        still = [index for index, answer in enumerate(open_answers) if not answer.done]
        if not still:
            break
        if len(still) < len(open_answers):
            cache.keep(torch.tensor(still, device=model.device))
            open_answers = [open_answers[index] for index in still]
        tokens = torch.tensor([answer.ids[-1] for answer in open_answers], device=model.device)
        count = len(open_answers)
        step = Layout(count, 1, torch.arange(count, device=model.device), None, cache)
        logits = model.logits(model.hidden(step, cache.lengths, ids=tokens))
        cache.lengths = cache.lengths + 1
        if pause:
            # What is loaded meanwhile may be trained later, without tensors of inference mode.
            with torch.inference_mode(False):
                pause()
    return [
        (
            answer.question,
            (encoder.raw_text(answer.ids) if answer.cut is None else answer.cut).strip(),
            sum(answer.log_probabilities),
        )
        for answer in answers
    ]


def _choose(logits: Tensor, answers: Sequence[_Answer], decoding: Decoding) -> list[int]:
    """The next token of each answer; notes its log-probability (before temperature and top-p)."""
    if decoding.temperature == 0:
        chosen = logits.argmax(-1)
    else:
        ranked, order = (logits / decoding.temperature).softmax(-1).cpu().sort(-1, descending=True)
        cumulated = ranked.cumsum(-1)
        if 0 < decoding.top_p < 1:
            # Keep the smallest set that reaches top_p: drop what starts beyond it.
            ranked[cumulated - ranked >= decoding.top_p] = 0
            cumulated = ranked.cumsum(-1)
        draws = torch.stack([torch.rand(1, generator=answer.stream) for answer in answers])
        picked = torch.searchsorted(cumulated, draws * cumulated[:, -1:]).clamp_max_(
            ranked.shape[-1] - 1
        )
        chosen = order.gather(-1, picked)[:, 0].to(logits.device)
    values = (logits.gather(-1, chosen[:, None])[:, 0] - logits.logsumexp(-1)).tolist()
    for answer, value in zip(answers, values, strict=True):
        answer.log_probabilities.append(value)
    return [int(token) for token in chosen.tolist()]


def _append(answer: _Answer, token: int, encoder: Encoder, decoding: Decoding, most: int) -> None:
    if encoder.ends(token, bool(answer.question.row.messages)):
        answer.done = True
        return
    answer.ids.append(token)
    answer.done = len(answer.ids) >= most
    if decoding.stop:
        text = encoder.raw_text(answer.ids)
        end = min((at for stop in decoding.stop if (at := text.find(stop)) >= 0), default=-1)
        if end >= 0:
            answer.cut = text[:end]
            answer.done = True
