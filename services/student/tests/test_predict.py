import itertools

import pytest
import torch
from conftest import make_rows

from tutelage_student.predict import Decoding, generate, label_tree, score_labels
from tutelage_student.recipe import Recipe
from tutelage_student.task import Encoder, Message, Row, Task
from tutelage_student.train import fine_tune


def log_probability(model, prompt, answer):
    """By one plain forward pass of transformers' own attention."""
    ids = torch.tensor([prompt + answer])
    model.network.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            scores = model.network(ids).logits[0].float().log_softmax(-1)
    finally:
        model.network.set_attn_implementation("tutelage_packed")
    return sum(float(scores[len(prompt) - 1 + index, token]) for index, token in enumerate(answer))


@pytest.mark.parametrize(
    "labels",
    [("negative", "positive"), ("NUM", "NUMBER", "a longer label", "a longer one")],
    ids=["short", "shared beginnings"],
)
def test_label_scores_are_the_full_labels_normalised(model, labels):
    task = Task("Text: {input}\nSentiment:", labels)
    rows = [*make_rows(7), Row("chat", messages=(Message("user", "the film was good"),))]
    answers = score_labels(model, rows, task)
    encoder = Encoder(model.tokenizer, task)
    assert [answer.row_id for answer in answers] == [row.id for row in rows]
    for row, answer in zip(rows, answers, strict=True):
        ids = encoder.label_ids(bool(row.messages))
        expected = torch.tensor(
            [log_probability(model, encoder.prompt(row), label) for label in ids]
        ).log_softmax(-1)
        got = torch.tensor([answer.label_log_probabilities[label] for label in labels])
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)
        assert answer.text == labels[int(expected.argmax())]


def test_label_tree_shares_nodes_and_reads_no_last_token():
    tree = label_tree([[1, 2, 3], [1, 2, 4], [5]])
    assert tree.tokens == (1, 2)
    assert tree.parents == (-1, 0)
    assert tree.steps == (((-1, 1), (0, 2), (1, 3)), ((-1, 1), (0, 2), (1, 4)), ((-1, 5),))
    assert label_tree([[1], [2]]).tokens == ()


def test_greedy_text_is_the_likeliest_continuation(model, task):
    rows = make_rows(6)
    encoder = Encoder(model.tokenizer, task)
    for row, answer in zip(
        rows, generate(model, rows, task, None, Decoding(max_new_tokens=5)), strict=True
    ):
        ids = encoder.prompt(row)
        start = len(ids)
        model.network.set_attn_implementation("eager")
        for _ in range(5):
            with torch.inference_mode():
                ids.append(int(model.network(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == encoder.eos_id:
                break
        model.network.set_attn_implementation("tutelage_packed")
        assert answer.text == encoder.raw_text(ids[start:]).strip()
        assert answer.log_probability == pytest.approx(
            log_probability(model, ids[:start], ids[start:]), abs=1e-3
        )


def test_sampling_depends_on_seed_and_row_not_on_company(model, task):
    rows = make_rows(9)
    decoding = Decoding(temperature=1.0, top_p=0.9, max_new_tokens=8, seed=4)
    together = generate(model, rows, task, None, decoding)
    alone = [generate(model, [row], task, None, decoding)[0] for row in rows]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    other = generate(model, rows, task, None, Decoding(temperature=1.0, max_new_tokens=8, seed=5))
    assert [answer.text for answer in together] != [answer.text for answer in other]


def test_trained_student_answers_with_the_label_and_stops(model, task):
    student = fine_tune(
        model,
        make_rows(64),
        task,
        Recipe(lora_rank=8, exact_steps=40, batch_rows=16, learning_rate=1e-2),
        seed=1,
    )
    rows = make_rows(20, seed=8)
    answers = generate(model, rows, task, student.weights, Decoding(max_new_tokens=20))
    assert sum(a.text == row.output for a, row in zip(answers, rows, strict=True)) >= 19
    scored = score_labels(model, rows, task, student.weights)
    assert [answer.text for answer in scored] == [answer.text for answer in answers]


def test_stop_ends_the_answer_before_it(model, task):
    rows = make_rows(4)
    free = generate(model, rows, task, None, Decoding(max_new_tokens=12))
    for row, answer in zip(rows, free, strict=True):
        if len(answer.text) < 4:
            continue
        stop = answer.text[2:4]
        cut = generate(model, [row], task, None, Decoding(max_new_tokens=12, stop=(stop,)))[0]
        assert cut.text == answer.text[: answer.text.find(stop)].strip()


def test_an_answer_ends_where_the_context_is_full(model, task):
    row = Row("near", "good " * 110, "positive")
    prompt = len(Encoder(model.tokenizer, task).prompt(row))
    assert model.context_tokens - 20 < prompt < model.context_tokens
    answers = [
        generate(model, [row], task, None, Decoding(temperature=20, max_new_tokens=most))[0]
        for most in (500, model.context_tokens - prompt, model.context_tokens - prompt - 1)
    ]
    assert not answers[0].too_long
    assert answers[0] == answers[1] != answers[2]


def test_pause_may_end_the_work(model, task):
    class Stopped(Exception):
        pass

    calls = itertools.count()

    def pause():
        if next(calls) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        generate(model, make_rows(4), task, None, Decoding(max_new_tokens=50), pause=pause)
    assert model.worn is None
