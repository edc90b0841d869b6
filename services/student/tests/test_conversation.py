"""Conversations: the model's own chat template, one way for training, scoring and generating."""

import copy

import pytest
from conftest import make_rows

from tutelage_student.errors import StudentError
from tutelage_student.examples import encode
from tutelage_student.gradient import loss_positions
from tutelage_student.predict import Decoding, generate, score_labels
from tutelage_student.recipe import Recipe
from tutelage_student.task import Encoder, Message, Row, Task
from tutelage_student.train import fine_tune

TURNS = (
    Message("system", "be kind"),
    Message("user", "where is the tall tower ?"),
    Message("assistant", "which one ?"),
    Message("user", "the film's"),
)
ROW = Row("talk", messages=TURNS, output="it was good")
FREE = Task("")
# A space before answers; turns end with a token which is not this tokenizer's end of sequence.
ODD_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %} {{ message['content'] }}"
    "</s>\n{% else %}[{{ message['role'] }}] {{ message['content'] }} [/]{% endif %}{% endfor %}"
)
STRICT_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('no system role here') }}{% endif %}"
    "{% for message in messages %}{{ message['content'] }}</s>{% endfor %}"
)


def with_template(model, template):
    changed = copy.copy(model)
    changed.tokenizer = copy.deepcopy(model.tokenizer)
    changed.tokenizer.chat_template = template
    if template == ODD_TEMPLATE:
        changed.tokenizer.eos_token = "<pad>"
    return changed


def as_dicts(*turns):
    return [{"role": turn.role, "content": turn.content} for turn in turns]


@pytest.mark.parametrize("template", [None, ODD_TEMPLATE], ids=["the model's", "odd"])
def test_tokens_are_those_of_the_chat_template(model, template):
    model = with_template(model, template) if template else model
    tokenizer = model.tokenizer
    encoder = Encoder(tokenizer, FREE)
    prompt = tokenizer.apply_chat_template(
        as_dicts(*TURNS), add_generation_prompt=True, return_dict=False
    )
    assert encoder.prompt(ROW) == prompt
    whole = tokenizer.apply_chat_template(
        as_dicts(*TURNS, Message("assistant", ROW.output)), return_dict=False
    )
    taught = encoder.prompt(ROW) + encoder.completion(ROW)
    assert taught == whole[: len(taught)]
    # What the template writes after the end of the turn is nobody's answer.
    assert tokenizer.decode(whole[len(taught) :]).strip() == ""


@pytest.mark.parametrize("template", [None, ODD_TEMPLATE], ids=["the model's", "odd"])
def test_loss_falls_on_the_answer_and_its_end_only(model, template):
    model = with_template(model, template) if template else model
    encoder = Encoder(model.tokenizer, FREE)
    examples, too_long = encode(model, encoder, [ROW])
    assert not too_long
    where, targets = loss_positions(examples)
    taught = model.tokenizer.decode(targets)
    assert taught.strip() == ROW.output + "</s>"
    assert where[0] == len(encoder.prompt(ROW)) - 1
    assert len(where) == len(encoder.completion(ROW))


def test_a_student_learns_to_answer_conversations_and_to_stop(model):
    for template in (None, ODD_TEMPLATE):
        asked = with_template(model, template) if template else model
        rows = [
            Row(row.id, messages=(Message("user", row.input),), output=row.output)
            for row in make_rows(64)
        ]
        recipe = Recipe(lora_rank=8, exact_steps=60, batch_rows=16, learning_rate=1e-2)
        task = Task("", ("negative", "positive"))
        student = fine_tune(asked, rows, task, recipe, seed=1)
        new = [
            Row(row.id, messages=(Message("user", row.input),), output=row.output)
            for row in make_rows(20, seed=8)
        ]
        answers = generate(asked, new, task, student.weights, Decoding(max_new_tokens=20))
        assert sum(a.text == row.output for a, row in zip(answers, new, strict=True)) >= 18
        scored = score_labels(asked, new, task, student.weights)
        assert sum(a.text == row.output for a, row in zip(scored, new, strict=True)) >= 18


def test_a_model_without_chat_template_is_refused_for_conversations_only(model, task):
    bare = with_template(model, None)
    with pytest.raises(StudentError, match=r"rows\.messages: row 'talk'.*has no chat template; "):
        generate(bare, [ROW], FREE, None, Decoding(max_new_tokens=1))
    assert len(score_labels(bare, make_rows(3), task)) == 3


def test_what_a_chat_template_refuses_is_named(model):
    strict = with_template(model, STRICT_TEMPLATE)
    message = r"chat template refuses row 'talk' with the roles system, user.*no system role here"
    with pytest.raises(StudentError, match=message):
        Encoder(strict.tokenizer, FREE).prompt(ROW)


def test_a_text_needs_a_prompt_template(model):
    with pytest.raises(StudentError, match=r"task\.prompt_template: empty, and row '0-0' is no"):
        Encoder(model.tokenizer, FREE).prompt(make_rows(1)[0])
