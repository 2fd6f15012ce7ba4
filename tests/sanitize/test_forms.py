"""Rows of every published form: what they say is read, what is unwanted is never learned, what is not read is named."""

import json
from collections import Counter
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest

from mixtune.errors import ConfigError, DataError
from mixtune.sanitize.reading.schemas import find_schema
from mixtune.sanitize.rules.record_texts import Refused

Q, A, S = ({"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "a"), ("system", "s")))
CALL = {"name": "f", "arguments": {"x": 1}}
OPENAI_CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
CALLED = {"role": "assistant", "content": "", "tool_calls": [{"id": "1", **CALL}]}
RESULT = {"role": "tool", "content": "r", "tool_call_id": "1"}
TOOL = {"name": "f", "description": "d", "parameters": {"type": "object"}}
HUMAN, GPT = {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}
HERMES = f"""You are a function calling AI model. You are provided with function signatures within <tools> </tools> XML tags.
<tools>
{json.dumps([TOOL])}
</tools>
Each function call should be enclosed within <tool_call> </tool_call> XML tags.
Example:
<tool_call>
{{'name': <function-name>,'arguments': <args-dict>}}
</tool_call>"""


def parts(role: str, *contents: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": list(contents)}


def turn(role: str, *contents: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "parts": list(contents)}


CHOSEN = [{"role": "user", "content": "q\nA. x\nB. y"}, {"role": "assistant", "content": "B"}]
READ: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "Bedrock, Claude: system as text": ({"system": "s", "messages": [Q, A]}, [S, Q, A]),
    "system said twice": ({"system": "s", "messages": [S, Q, A]}, [S, Q, A]),
    "TRL: conversational prompt and completion": ({"prompt": [S, Q], "completion": [A]}, [S, Q, A]),
    "TRL: one message each": ({"prompt": Q, "completion": A}, [Q, A]),
    "TRL: pair of answers": ({"prompt": "q", "chosen": "a", "rejected": "no"}, [Q, A]),
    "TRL: conversational pair": ({"prompt": [Q], "chosen": [A], "rejected": [A]}, [Q, A]),
    "TRL: pair of whole conversations": ({"chosen": [Q, A], "rejected": [Q, A]}, [Q, A]),
    "UltraFeedback: the chosen holds its prompt": ({"prompt": "q", "chosen": [Q, A], "rejected": [Q, A]}, [Q, A]),
    "TRL: wanted": ({"prompt": "q", "completion": "a", "label": True}, [Q, A]),
    "OpenAI: parts and calls": (
        {"messages": [parts("user", {"type": "text", "text": "q"}),
                      {**parts("assistant", {"type": "text", "text": "x"}), "tool_calls": [OPENAI_CALL]},
                      {**parts("tool", {"type": "text", "text": "r"}), "tool_call_id": "1"}, A]},
        [Q, {**CALLED, "content": "x"}, RESULT, A]),
    "OpenAI: function_call": (
        {"messages": [Q, {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"x": 1}'}}]},
        [Q, {"role": "assistant", "content": "", "tool_calls": [CALL]}]),
    "OpenAI: preference": (
        {"input": {"messages": [S, Q], "tools": []}, "preferred_output": [A], "non_preferred_output": [A]}, [S, Q, A]),
    "OpenAI: a turn of weight 0 is context": (
        {"messages": [Q, {**A, "weight": 0}, Q, {**A, "weight": 1}]}, [Q, {**A, "learn": False}, Q, A]),
    "Axolotl: turns by train": (
        {"conversations": [HUMAN, {**GPT, "train": False}, {**HUMAN, "train": False}, {**GPT, "train": True}]},
        [Q, {**A, "learn": False}, {**Q, "learn": False}, A]),
    "OpenAI: all weights 1": ({"messages": [Q, {**A, "weight": 1}]}, [Q, A]),
    "OpenAI: a refusal is what is said": ({"messages": [Q, {"role": "assistant", "content": None, "refusal": "a"}]}, [Q, A]),
    "Gemini": (
        {"systemInstruction": turn("system", {"text": "s"}),
         "contents": [turn("user", {"text": "q"}), turn("model", {"functionCall": {"name": "f", "args": {"x": 1}}}),
                      turn("user", {"functionResponse": {"name": "f", "response": {"r": 2}}}),
                      turn("model", {"text": "t", "thought": True}, {"text": "a"})]},
        [S, Q, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": '{"r": 2}'},
         {**A, "reasoning": "t"}]),
    "Gemini: pieces of a text": (
        {"contents": [turn("user", {"text": "What is "}, {"text": "it?"}), turn("model", {"text": "Fo"}, {"text": "ur."})]},
        [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "Four."}]),
    "Gemini: preference": (
        {"contents": [turn("user", {"text": "q"})],
         "completions": [{"score": 0.0, "completion": turn("model", {"text": "no"})},
                         {"score": 1.0, "completion": turn("model", {"text": "a"})}]}, [Q, A]),
    "Cohere": ({"messages": [{"role": "System", "content": "s"}, {"role": "User", "content": "q"},
                             {"role": "Chatbot", "content": "a"}]}, [S, Q, A]),
    "Cohere: plan and documents": (
        {"messages": [Q, {"role": "assistant", "tool_plan": "x", "tool_calls": [OPENAI_CALL]},
                      {**parts("tool", {"type": "document", "document": {"data": "r"}}), "tool_call_id": "1"}, A]},
        [Q, {**CALLED, "content": "x"}, {**RESULT, "content": '{"data": "r"}'}, A]),
    "Mistral: thinking": (
        {"messages": [Q, parts("assistant", {"type": "thinking", "thinking": [{"type": "text", "text": "t"}]},
                               {"type": "text", "text": "a"})]}, [Q, {**A, "reasoning": "t"}]),
    "Anthropic: use and result": (
        {"system": [{"type": "text", "text": "s"}],
         "messages": [Q, parts("assistant", {"type": "thinking", "thinking": "t", "signature": "x"},
                               {"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1}}),
                      parts("user", {"type": "tool_result", "tool_use_id": "1", "content": "r"}), A]},
        [S, Q, {**CALLED, "reasoning": "t"}, RESULT, A]),
    "Nova: parts of any combination, nulls filled in": (
        {"messages": [parts("user", {"text": "q", "toolUse": None, "toolResult": None}),
                      parts("assistant", {"reasoningContent": {"reasoningText": {"text": "t"}}},
                            {"reasoningContent": {"reasoningText": {"text": "u"}}},
                            {"text": "x", "toolUse": {"toolUseId": "1", "name": "f", "input": {"x": 1}}}),
                      parts("user", {"text": "more", "toolResult": {"toolUseId": "1", "content": [{"text": "r"}]}}),
                      parts("assistant", {"text": "a"})]},
        [Q, {**CALLED, "content": "x", "reasoning": "t\nu"}, RESULT, {"role": "user", "content": "more"}, A]),
    "LangChain: calls as additional_kwargs": (
        {"messages": [{"type": "human", "data": {"content": "q"}},
                      {"type": "ai", "data": {"content": "", "additional_kwargs": {"tool_calls": [OPENAI_CALL]}}}]}, [Q, CALLED]),
    "a turn that is masked": (
        {"messages": [Q, {**A, "masked": True}, Q, {**A, "masked": False}]}, [Q, {**A, "learn": False}, Q, A]),
    "a turn by its loss_mask": ({"messages": [Q, {**A, "loss_mask": 0}, Q, {**A, "loss_mask": 1}]}, [Q, {**A, "learn": False}, Q, A]),
    "a class by its name and number": ({"text": "q", "label": 0, "label_text": "a"}, [Q, A]),
    "a thought of white space alone": (
        {"messages": [Q, parts("assistant", {"type": "thinking", "thinking": " \t"}, {"type": "text", "text": "a"})]}, [Q, A]),
    "Alpaca: history": ({"instruction": "q", "input": "", "output": "a", "history": [["h", "k"]]},
                        [{"role": "user", "content": "h"}, {"role": "assistant", "content": "k"}, Q, A]),
    "Swift: history, system": ({"query": "q", "response": "a", "history": "[[\"h\", \"k\"]]", "system": "s"},
                               [S, {"role": "user", "content": "h"}, {"role": "assistant", "content": "k"}, Q, A]),
    "context beside question and answer": ({"question": "q", "context": "c", "answer": "a"}, [{"role": "user", "content": "q\n\nc"}, A]),
    "context beside prompt and response": ({"prompt": "q", "context": "c", "response": "a"}, [{"role": "user", "content": "q\n\nc"}, A]),
    "a context that the first row lacks": ({"instruction": "q", "output": "a", "context": "c"}, [{"role": "user", "content": "q\n\nc"}, A]),
    "system_prompt": ({"system_prompt": "s", "question": "q", "response": "a"}, [S, Q, A]),
    "reasoning beside": ({"prompt": "q", "completion": "a", "reasoning": "t"}, [Q, {**A, "reasoning": "t"}]),
    "ShareGPT: function_call": (
        {"conversations": [HUMAN, {"from": "function_call", "value": json.dumps(CALL)}, {"from": "observation", "value": "r"}, GPT],
         "system": "s", "tools": json.dumps([TOOL])},
        [S, Q, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "r"}, A]),
    "LlamaFactory: preference": (
        {"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "no"}}, [Q, A]),
    "LlamaFactory: parts with values": (
        {"messages": [{**parts("user", {"type": "text", "value": "q"}), "loss_weight": 1.0},
                      parts("assistant", {"type": "reasoning", "value": "t"}, {"type": "text", "value": "a"})]},
        [Q, {**A, "reasoning": "t"}]),
    "conversations of a pair as JSON text, as CSV has them": ({"prompt": json.dumps([S, Q]), "completion": json.dumps([A])}, [S, Q, A]),
    "an empty instruction": ({"instruction": "", "input": "q", "output": "a"}, [Q, A]),
    "other case, spaces and humps": ({"systemPrompt": "s", "Chat History": [["h", "k"]], "question": "q", "answer": "a"},
                                     [S, {"role": "user", "content": "h"}, {"role": "assistant", "content": "k"}, Q, A]),
    "System beside messages": ({"System": "s", "messages": [Q, A]}, [S, Q, A]),
    "LangChain's and OpenAssistant's roles": ({"messages": [{"role": "prompter", "text": "q"}, {"role": "ai", "message": "a"}]}, [Q, A]),
    "columns of two speakers": ({"system": "s", "user": "q", "assistant": "a"}, [S, Q, A]),
    "ARC": ({"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}, CHOSEN),
    "MMLU-Pro": ({"question": "q", "options": ["x", "y"], "answer": "B", "answer_index": 1}, CHOSEN),
    "choices as JSON text": ({"question": "q", "choices": '["x", "y"]', "answer": "1"}, CHOSEN),
    "the answer is a choice": ({"question": "q", "choices": ["x", "y"], "answer": "y"}, CHOSEN),
    "numbers as choices, a number as place": ({"question": "q", "choices": ["1", "0"], "answer": 0},
                                              [{"role": "user", "content": "q\nA. 1\nB. 0"}, {"role": "assistant", "content": "A"}]),
    "a column for each choice": ({"question": "q", "A": "x", "B": "y", "answer": "B"}, CHOSEN),
    "XTuner": ({"conversation": [{"system": "s", "input": "q", "output": "a"}]}, [S, Q, A]),
    "names in capitals": ({"Question": "q", "Response": "a"}, [Q, A]),
    "messages as JSON text": ({"messages": json.dumps([Q, A])}, [Q, A]),
    "dates, decimals, numbers": (
        {"prompt": [date(2020, 1, 2), datetime(2020, 1, 2, 3), Decimal("1.10"), float("nan"), 10**25], "completion": True},
        [{"role": "user", "content": "2020-01-02\n\n2020-01-02T03:00:00\n\n1.10\n\n\n\n1" + "0" * 25},
         {"role": "assistant", "content": "true"}]),
    "an integer label of a column with nulls": ({"text": "q", "label": 3.0}, [Q, {"role": "assistant", "content": "3"}]),
    "plain text and a class": ({"text": "q", "intent": "a"}, [Q, A]),
    "a system text beside a text and its class": ({"text": "q", "label": "a", "system": "s"}, [S, Q, A]),
    "Prodigy: a class that was accepted": ({"text": "q", "label": "a", "answer": "accept"}, [Q, A]),
    "xLAM: calls as JSON text": (
        {"query": "q", "answers": json.dumps([CALL]), "tools": json.dumps([TOOL])},
        [Q, {"role": "assistant", "content": "", "tool_calls": [CALL]}]),
    "SQuAD": ({"question": "q", "context": "c", "answers": {"text": ["a", "a"], "answer_start": [1, 1]}},
              [{"role": "user", "content": "q\n\nc"}, A]),
    "SQuAD's answers as NumPy prints them": (
        {"question": "q", "context": "c", "answers": "{'text': array(['a', 'a'], dtype=object), 'answer_start': array([1, 1])}"},
        [{"role": "user", "content": "q\n\nc"}, A]),
    "RACE: an article before the choices": (
        {"article": "c", "question": "q", "options": ["x", "y"], "answer": "B"},
        [{"role": "user", "content": "c\n\nq\nA. x\nB. y"}, {"role": "assistant", "content": "B"}]),
    "choices under a system text": ({"system": "s", "question": "q", "choices": ["x", "y"], "answer": 1}, [S, *CHOSEN]),
    "MedQA: choices by their letters": ({"question": "q", "options": {"A": "x", "B": "y"}, "answer": "y"}, CHOSEN),
    "a thought, as Complex_CoT": ({"Question": "q", "Complex_CoT": "t", "Response": "a"}, [Q, {**A, "reasoning": "t"}]),
    "Capybara: the chosen is the whole conversation": (
        {"conversation": [{"input": "q", "output": None}], "chosen": [Q, A], "rejected": [Q, A]}, [Q, A]),
    "the chosen begins with the last turn": ({"messages": [S, Q], "chosen": [Q, A], "rejected": [Q, A]}, [S, Q, A]),
    "Swift: pairs of human and assistant": ({"system": "s", "conversation": [{"human": "q", "assistant": "a"}]}, [S, Q, A]),
    "XTuner: an answer without loss": (
        {"conversation": [{"input": "q", "output": "a", "output_with_loss": False}, {"input": "q", "output": "a"}]},
        [Q, {**A, "learn": False}, Q, A]),
    "LangChain: the speaker as type": ({"messages": [{"type": "human", "data": {"content": "q"}}, {"type": "ai", "content": "a"}]}, [Q, A]),
    "a customer and an agent": ({"dialog": [{"speaker": "customer", "utterance": "q"}, {"speaker": "agent", "utterance": "a"}]}, [Q, A]),
    "a system text as a message": ({"system": {"role": "system", "content": "s"}, "messages": [Q, A]}, [S, Q, A]),
    "OpenAI: instructions": ({"instructions": "s", "messages": [Q, A]}, [S, Q, A]),
    "a context that stands in the messages, too": ({"context": ["q"], "messages": [Q, A]}, [Q, A]),
    "harmony: the final channel": ({"messages": [Q, {**A, "channel": "final"}]}, [Q, A]),
    "answers that are one": ({"question": "q", "answers": ["a"]}, [Q, A]),
    "a list with one answer": ({"question": "q", "answer": ["a"]}, [Q, A]),
    "a fraction as an answer": ({"prompt": "q", "completion": Decimal("3.0")}, [Q, {"role": "assistant", "content": "3.0"}]),
    "Nemotron: whether there is a thought": ({"system_prompt": "s", "input": "q", "output": "a", "reasoning": "on"}, [S, Q, A]),
    "a turn that is not trainable": (
        {"messages": [Q, {**A, "trainable": False}, Q, {**A, "trainable": True}]}, [Q, {**A, "learn": False}, Q, A]),
    "HH-RLHF: a conversation as one text": (
        {"chosen": "\n\nHuman: q\n\nAssistant: x\n\ny\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        [Q, {**A, "content": "x\n\ny"}, Q, A]),
    "Guanaco: a conversation as one text": ({"text": "### Human: q### Assistant: a"}, [Q, A]),
    "ChatML as one text": ({"text": "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"}, [S, Q, A]),
    "OpenAI: items of Responses": (
        {"instructions": "s", "input": [Q, {"type": "function_call", "call_id": "1", "name": "f", "arguments": '{"x": 1}'},
                                        {"type": "function_call_output", "call_id": "1", "output": "r"}],
         "output": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}]},
                    {"type": "message", **parts("assistant", {"type": "output_text", "text": "a"})}]},
        [S, Q, CALLED, RESULT, {**A, "reasoning": "t"}]),
    "OpenAI: a call behind a text, as items": (
        {"input": "q", "output": [{"type": "message", **A},
                                  {"type": "function_call", "call_id": "1", "name": "f", "arguments": '{"x": 1}'}]},
        [Q, {**CALLED, "content": "a"}]),
    "a logged request and response, OpenAI": (
        {"request": {"messages": [S, Q], "model": "m"}, "response": {"body": {"choices": [{"message": A, "finish_reason": "stop"}]}}}, [S, Q, A]),
    "a logged request and response, Anthropic": (
        {"system": "s", "messages": [Q], "response": {"type": "message", **parts("assistant", {"type": "text", "text": "a"})}}, [S, Q, A]),
    "a logged request and response, Vertex": (
        {"request": {"contents": [turn("user", {"text": "q"})]}, "response": {"candidates": [{"content": turn("model", {"text": "a"})}]}}, [Q, A]),
    "a logged request and response, Bedrock": (
        {"input": {"inputBodyJson": {"messages": [parts("user", {"text": "q"})]}},
         "output": {"outputBodyJson": {"output": {"message": parts("assistant", {"text": "a"})}}}}, [Q, A]),
    "Hermes: calls spelled in the text": (
        {"conversations": [HUMAN, {"from": "gpt", "value": 'x\n<tool_call>\n{"arguments": {"x": 1}, "name": "f"}\n</tool_call>\n'},
                           {"from": "tool", "value": "<tool_response>\nr\n</tool_response>"}, GPT], "tools": json.dumps([TOOL])},
        [Q, {**A, "content": "x", "tool_calls": [CALL]}, {"role": "tool", "content": "r"}, A]),
    "calls spelled in the text, without tools beside": (
        {"messages": [Q, {**A, "content": "<tool_call>\n{}\n</tool_call>"}]}, [Q, {**A, "content": "<tool_call>\n{}\n</tool_call>"}]),
    "a conversation inside an object": ({"id": 1, "chat": {"models": ["m"], "messages": [Q, A]}}, [Q, A]),
    "the answer beside messages": ({"messages": [S, Q], "response": "a"}, [S, Q, A]),
    "an answer's message beside messages": ({"messages": [Q], "completion": [A]}, [Q, A]),
    "Olmo and Llama: what a tool says": (
        {"messages": [Q, {"role": "assistant", "content": "x"}, {"role": "environment", "content": "r"}, A]},
        [Q, {**A, "content": "x"}, {"role": "tool", "content": "r"}, A]),
    "Claude's export: the sender": ({"messages": [{"sender": "human", "text": "q"}, {"sender": "assistant", "text": "a"}]}, [Q, A]),
    "Alpaca: an input that pandas left empty": ({"instruction": "q", "input": "nan", "output": "a"}, [Q, A]),
    "an object as an answer": ({"prompt": "q", "completion": {"city": "a"}}, [Q, {"role": "assistant", "content": '{"city": "a"}'}]),
    "AI SDK: the steps of an answer": (
        {"messages": [turn("user", {"type": "text", "text": "q"}),
                      {**turn("assistant", {"type": "step-start"}, {"type": "reasoning", "text": "t", "state": "done"},
                              {"type": "tool-f", "toolCallId": "1", "state": "output-available", "input": {"x": 1}, "output": "r"},
                              {"type": "step-start"}, {"type": "text", "text": "a"}), "id": "m"}]},
        [Q, {**CALLED, "reasoning": "t"}, RESULT, A]),
    "AI SDK: a tool that gives nothing back": (
        {"messages": [Q, turn("assistant", {"type": "tool-f", "toolCallId": "1", "state": "output-available", "input": {"x": 1}, "output": None},
                              {"type": "text", "text": "a"})]}, [Q, CALLED, {**RESULT, "content": "null"}, A]),
    "AI SDK 4: parts tell the order, the content does not": (
        {"messages": [{**Q, **turn("user", {"type": "text", "text": "q"})},
                      {**A, **turn("assistant", {"type": "tool-invocation", "toolInvocation": {
                          "state": "result", "toolCallId": "1", "toolName": "f", "args": {"x": 1}, "result": {"r": [1]}}},
                          {"type": "text", "text": "a"})}]},
        [Q, CALLED, {**RESULT, "content": '{"r": [1]}'}, A]),
    "AI SDK: messages for a model": (
        {"messages": [Q, parts("assistant", {"type": "text", "text": "x"},
                               {"type": "tool-call", "toolCallId": "1", "toolName": "f", "input": {"x": 1}}),
                      parts("tool", {"type": "tool-result", "toolCallId": "1", "toolName": "f",
                                     "output": {"type": "text", "value": "r"}}), A]},
        [Q, {**CALLED, "content": "x"}, RESULT, A]),
    "OpenTelemetry: a span": (
        {"attributes": {
            "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "s"}]),
            "gen_ai.input.messages": json.dumps([
                turn("user", {"type": "text", "content": "q"}),
                turn("assistant", {"type": "tool_call", "id": "1", "name": "f", "arguments": {"x": 1}}),
                turn("tool", {"type": "tool_call_response", "id": "1", "response": "r"})]),
            "gen_ai.output.messages": json.dumps([
                {**turn("assistant", {"type": "reasoning", "content": "t"}, {"type": "text", "content": "a"}), "finish_reason": "stop"}])}},
        [S, Q, CALLED, RESULT, {**A, "reasoning": "t"}]),
    "Anthropic: a batch's request and its result": (
        {"custom_id": "1", "params": {"system": "s", "messages": [Q]},
         "result": {"type": "succeeded", "message": {**parts("assistant", {"type": "text", "text": "a"}), "type": "message"}}}, [S, Q, A]),
    "OpenAI: choices beside messages": ({"messages": [Q], "choices": [{"index": 0, "message": A, "finish_reason": "stop"}]}, [Q, A]),
    "Braintrust and stored completions: messages as the input, choices": (
        {"input": [S, Q], "output": [{"index": 0, "message": A, "finish_reason": "stop"}]}, [S, Q, A]),
    "ShareGPT: from chatgpt": ({"conversations": [{"from": "user", "value": "q"}, {"from": "chatgpt", "value": "a"}]}, [Q, A]),
    "a later turn with its history": (
        {"turn_id": 1, "question": "q", "answer": "a", "history": [["h", "k"]]},
        [{"role": "user", "content": "h"}, {"role": "assistant", "content": "k"}, Q, A]),
    "Langfuse: an item of a data set": ({"id": "1", "input": "q", "expectedOutput": "a"}, [Q, A]),
    "OpenAI's evals: the ideal": ({"input": [S, Q], "ideal": "a"}, [S, Q, A]),
    "Gemini API: a text and its output": ({"text_input": "q", "output": "a"}, [Q, A]),
    "Llama Stack: a turn": ({"input_messages": [Q], "output_message": A, "session_id": "1"}, [Q, A]),
    "Hermes: the tools in the system text, too": (
        {"conversations": [{"from": "system", "value": HERMES}, HUMAN, {"from": "gpt", "value": f"<tool_call>\n{json.dumps(CALL)}\n</tool_call>"},
                           {"from": "tool", "value": "<tool_response>\nr\n</tool_response>"}, GPT], "tools": json.dumps([TOOL])},
        [Q, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "r"}, A]),
    "Hermes: calls as Python prints them": (
        {"conversations": [HUMAN, {"from": "gpt", "value": "<tool_call>\n{'arguments': {'x': 1}, 'name': 'f'}\n</tool_call>"}],
         "tools": json.dumps([TOOL])}, [Q, {"role": "assistant", "content": "", "tool_calls": [CALL]}]),
    "Qwen: the tools behind a system text, too": (
        {"messages": [{**S, "content": f"s\n\n# Tools\n\n{HERMES}"}, Q, A], "tools": [TOOL]}, [S, Q, A]),
    "tools in the system text that are others": (
        {"messages": [{**S, "content": HERMES}, Q, A], "tools": [{**TOOL, "name": "g"}]}, [{**S, "content": HERMES}, Q, A]),
    "rules among the tools in the system text": (
        {"messages": [{**S, "content": HERMES.replace("You are p", "Never ask for a PIN. You are p").replace("Each f", "Be brief. Each f")},
                      Q, A], "tools": [TOOL]},
        [{**S, "content": f"You are a function calling AI model. Never ask for a PIN. Be brief. {HERMES[HERMES.index('Each'):]}"}, Q, A]),
    "rules behind the tools in the system text": (
        {"messages": [{**S, "content": f"{HERMES}\nAsk before you call <tool_call></tool_call> twice."}, Q, A], "tools": [TOOL]},
        [{**S, "content": "Ask before you call <tool_call></tool_call> twice."}, Q, A]),
    "Toucan: calls as turns, as Python prints them": (
        {"tools": json.dumps([TOOL]), "messages": json.dumps([
            Q, {**A, "content": "x"}, {"role": "tool_call", "content": str({"name": "f", "arguments": '{"x": 1}'})},
            {"role": "tool_call", "content": str({"name": "f", "arguments": "{}"})},
            {"role": "tool_response", "content": "r"}, {"role": "tool_response", "content": "r"}, A])},
        [Q, {**A, "content": "x", "tool_calls": [CALL, {**CALL, "arguments": {}}]}, *[{"role": "tool", "content": "r"}] * 2, A]),
    "roles with spaces, contents that are objects": (
        {"conversation": [Q, {"role": "tool call", "content": CALL}, {"role": "Tool-Response", "content": {"r": 1}}, A],
         "tools": [{"name": "f", "description": "d", "arguments": {"type": "object"}}]},
        [Q, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": '{"r": 1}'}, A]),
    "SmolTalk 2: what a template is given": (
        {"messages": [Q, A], "chat_template_kwargs": {"custom_instructions": "s", "enable_thinking": False,
                                                      "xml_tools": [f"Use them:\n<tools>\n[{json.dumps(TOOL)}]\n</tools>"], "python_tools": []}},
        [S, Q, A]),
    "When2Call: calls as a list in the text": (
        {"tools": [json.dumps(TOOL)], "messages": [Q, {**A, "content": f"<TOOLCALL>[{json.dumps(CALL)}]</TOOLCALL>"}]},
        [Q, {"role": "assistant", "content": "", "tool_calls": [CALL]}]),
    "Natural Instructions: the task beside": ({"definition": "d", "inputs": "q", "targets": "a"}, [{**Q, "content": "q\n\nd"}, A]),
    "OpenMathInstruct: a solution beside its result": ({"question": "q", "expected_answer": "4", "generated_solution": "a"}, [Q, A]),
    "Firefly": ({"kind": "k", "input": "q", "target": "a"}, [Q, A]),
    "Llama 2's template as one text": (
        {"text": "<s>[INST] <<SYS>>\ns\n<</SYS>>\n\nq [/INST] a </s><s>[INST] q [/INST] a </s>"}, [S, Q, A, Q, A]),
    "DeepSeek's export: the newest message": (
        {"title": "t", "mapping": {
            "root": {"id": "root", "message": None, "children": ["1"]},
            "1": {"id": "1", "parent": "root", "message": {"inserted_at": "1", "fragments": [{"type": "REQUEST", "content": "q"}]}},
            "2": {"id": "2", "parent": "1", "message": {"inserted_at": "2", "fragments": [{"type": "RESPONSE", "content": "b"}]}},
            "3": {"id": "3", "parent": "1", "message": {"inserted_at": "3", "fragments": [
                {"type": "THINK", "content": "t"}, {"type": "RESPONSE", "content": "a"}, {"type": "TIP", "content": "x"}]}}}},
        [Q, {**A, "reasoning": "t"}]),
    "Chatbox": (
        {"name": "n", "messages": [{"role": "user", "contentParts": [{"type": "text", "text": "q"}]},
                                   {"role": "assistant", "contentParts": [{"type": "text", "text": "a"}], "generating": False}]}, [Q, A]),
    "columns that are named as an export's": (
        {"prompt": "q", "completion": "a", "mapping": {"x": {"message": "y"}}, "chat": {"history": None}, "data": '["x"]'}, [Q, A]),
    "HelpSteer2: several turns as one text": (
        {"prompt": "q\n<extra_id_1>Assistant\na\n<extra_id_1>User\nq", "response": "a"}, [Q, A, Q, A]),
    "turns by columns, as `datasets` keeps a sequence": ({"conversations": {"from": ["human", "gpt"], "value": ["q", "a"]}}, [Q, A]),
    "a question that is JSON with replies": (
        {"prompt": '{"replies": ["x"], "y": 1}', "completion": "a"}, [{**Q, "content": '{"replies": ["x"], "y": 1}'}, A]),
    "a question that quotes an export": (
        {"prompt": 'Read {"replies": ["x"]}', "completion": "a"}, [{**Q, "content": 'Read {"replies": ["x"]}'}, A]),
    "texts that quote an export's fields": (
        {"prompt": "q", "completion": "a", "data": 'it says ["x"]', "mapping": 'a "message"', "chat": 'the "history" of it'}, [Q, A]),
    "a mapping of an export's name beside a pair": ({"prompt": "q", "completion": "a", "mapping": {"x": "y"}, "current_node": "x"}, [Q, A]),
    "a tree beside messages": (
        {"messages": [Q, A], "current_node": "1", "mapping": {"1": {"id": "1", "message": {"inserted_at": "1", "content": "b"}}}}, [Q, A]),
    "a mapping to numbers and texts": ({"messages": [Q, A], "mapping": {"x": {"message": 5}, "y": {"message": "inserted_at"}}}, [Q, A]),
    "a chat that is no app's": ({"messages": [Q, A], "chat": {"history": ["messages"]}}, [Q, A]),
    "a chat beside messages": ({"messages": [Q, A], "chat": {"history": {"messages": {}, "currentId": "1"}}}, [Q, A]),
    "messages with their former versions": ({"messages": [{**Q, "versions": []}, {**A, "versions": [{"content": "b"}]}]}, [Q, A]),
    "chat_messages of other senders": (
        {"chat_messages": [{"sender": "system", "text": "s"}, {"sender": "user", "text": "q"}, {"sender": "bot", "text": "a"}]}, [S, Q, A]),
    "messages that name their thread": (
        {"messages": [{**message, "parent_id": "thread-7"} for message in (Q, A, Q, A)]}, [Q, A, Q, A]),
    "a task with its input and target": (
        {"instruction": "q", "input": "i", "target": "a"}, [{**Q, "content": "q\n\ni"}, A]),
    "a solution that is the answer": ({"question": "q", "answer": "a", "solution": "a"}, [Q, A]),
    "values for a template as a word": ({"messages": [Q, A], "chat_template_kwargs": "none"}, [Q, A]),
    "an answer that is a dash": ({"prompt": "q", "completion": "-"}, [Q, {**A, "content": "-"}]),
    "a class of each turn": ({"messages": [{**Q, "label": 0}, {**A, "label": 0}]}, [Q, A]),
    "a first turn alone": ({"turn_id": 0, "turn_index": 0.0, "question": "q", "answer": "a"}, [Q, A]),
    "a turn that was cut off, as context": (
        {"messages": [Q, {**A, "weight": 0, "finish_reason": "length", "thumbs_up": False}, Q, A]}, [Q, {**A, "learn": False}, Q, A]),
    "a question about a template's marks": (
        {"prompt": "<|im_start|> and [INST] begin what?", "completion": "a"}, [{**Q, "content": "<|im_start|> and [INST] begin what?"}, A]),
    "JSON to be turned into JSON": (
        {"instruction": "q", "input": '[{"choices": ["x"]}]', "output": '{"choices": ["a"]}'},
        [{**Q, "content": 'q\n\n[{"choices": ["x"]}]'}, {**A, "content": '{"choices": ["a"]}'}]),
    "UltraChat: texts by turns": ({"id": "1", "data": ["q", "It is a."]}, [Q, {**A, "content": "It is a."}]),
    "LIMA: a conversation as texts": ({"conversations": ["q", "a", "q", "a"], "source": "multi_turn"}, [Q, A, Q, A]),
    "Glaive: a transcript with calls": (
        {"system": f"SYSTEM: s -\n{json.dumps(TOOL, indent=4)}\n\n{json.dumps({**TOOL, 'name': 'g'})}\n",
         "chat": "USER: q\n\n\nASSISTANT: <functioncall> {\"name\": \"f\", \"arguments\": '{\n\"x\": 1}'} <|endoftext|>\n\n\n"
                 "FUNCTION RESPONSE: r\n\n\nASSISTANT: a <|endoftext|>\n\n\n"},
        [S, Q, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "r"}, A]),
    "Glaive: calls as turns, tools one behind the other": (
        {"system_message": "s", "function_description": f"{json.dumps(TOOL)}\n\n{json.dumps({**TOOL, 'name': 'g'})}",
         "conversations": [HUMAN, {"from": "function-call", "value": "{\"name\": \"f\", \"arguments\": '{\"x\": 1}'}"},
                           {"from": "function-response", "value": "r"}, GPT]},
        [S, Q, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "r"}, A]),
    "HH-RLHF: a question that is the conversation so far": (
        {"prompt": "\n\nHuman: q\n\nAssistant: a\n\nHuman: q\n\nAssistant:", "response": "a"}, [Q, A, Q, A]),
    "SGD: the system answers": (
        {"dialogue_id": "1", "turns": [{"speaker": "USER", "utterance": "q"}, {"speaker": "SYSTEM", "utterance": "a"}]}, [Q, A]),
    "OpenAI: a thread's messages, the newest first": (
        {"messages": [{**parts(message["role"], {"type": "text", "text": {"value": message["content"], "annotations": []}}), "created_at": time}
                      for message, time in ((A, 2), (Q, 1))]}, [Q, A]),
    "OpenThoughts: a thought and a solution between marks": (
        {"system": "Your role as an assistant involves x <|begin_of_thought|> y <|end_of_solution|> Now, try to z:", "conversations": [
            HUMAN, {**GPT, "value": "<|begin_of_thought|>\nt\n<|end_of_thought|>\n<|begin_of_solution|>\na\n<|end_of_solution|>"}]},
        [Q, {**A, "reasoning": "t"}]),
    "a thought beside messages": ({"messages": [S, Q], "reasoning": "t", "answer": "a"}, [S, Q, {**A, "reasoning": "t"}]),
    "Magpie: what a question takes to answer": (
        {"instruction": "q", "response": "a", "intent": "i", "knowledge": "k", "difficulty": "easy"}, [Q, A]),
    "Magpie: the same beside messages": ({"conversations": [HUMAN, GPT], "intent": "i", "knowledge": "k", "difficulty": "easy"}, [Q, A]),
    "HotpotQA: passages by columns": (
        {"question": "q", "answer": "a", "context": {"title": ["x", "y"], "sentences": [["One.", " Two."], ["Three."]]}},
        [{**Q, "content": "q\n\nx\nOne. Two.\n\ny\nThree."}, A]),
    "HotpotQA: passages as pairs": (
        {"question": "q", "answer": "a", "context": [["x", ["One.", "Two."]], ["y", ["Three."]]]},
        [{**Q, "content": "q\n\nx\nOne. Two.\n\ny\nThree."}, A]),
    "PubMedQA: passages in an object": (
        {"question": "q", "answer": "a", "context": {"contexts": ["One.", "Two."], "labels": ["AIM"], "meshes": []}},
        [{**Q, "content": "q\n\nOne.\n\nTwo."}, A]),
    "MS MARCO: passages beside their places": (
        {"query": "q", "answers": ["a"], "passages": {"is_selected": [0, 1], "passage_text": ["One.", "Two."], "url": ["u", "v"]}},
        [{**Q, "content": "q\n\nOne.\n\nTwo."}, A]),
    "RAGBench: documents beside a question": ({"question": "q", "documents": ["c", "d"], "response": "a"}, [{**Q, "content": "q\n\nc\n\nd"}, A]),
    "an object that is no passage, as context": (
        {"question": "q", "context": {"order": 5, "text": "c"}, "answer": "a"}, [{**Q, "content": 'q\n\n{"order": 5, "text": "c"}'}, A]),
    "a context that the question quotes": ({"prompt": "q of\nc\nor d", "context": "c", "response": "a"}, [{**Q, "content": "q of\nc\nor d"}, A]),
    "a prompt before an input": ({"prompt": "q", "input": "c", "output": "a"}, [{**Q, "content": "q\n\nc"}, A]),
    "a conversation in a list of conversations": ({"question": [[S, Q]], "answer": "a"}, [S, Q, A]),
    "Hermes: the tools and the schema of a call in the system text": (
        {"conversations": [{"from": "system", "value": HERMES.partition("Each")[0] +
                            "For each function call return a json object with function name and arguments within <tool_call> </tool_call> "
                            "tags with the following schema:\n<tool_call>\n{'arguments': <args-dict>, 'name': <function-name>}\n</tool_call>\n"},
                           HUMAN, GPT], "tools": json.dumps([TOOL])}, [Q, A]),
    "Grok's export: the newest message": (
        {"conversation": {"id": "c"}, "responses": [{"response": {"sender": sender, "message": text, "_id": name, "parent_response_id": parent}}
                                                    for sender, text, name, parent in (("human", "q", "1", ""), ("assistant", "b", "2", "1"),
                                                                                       ("ASSISTANT", "a", "3", "1"))]}, [Q, A]),
    "AI Studio's prompt": (
        {"systemInstruction": {"text": "s"}, "chunkedPrompt": {"chunks": [
            {"text": "q", "role": "user"}, {"text": "t", "role": "model", "isThought": True}, {"text": "a", "role": "model", "finishReason": "STOP"}]}},
        [S, Q, {**A, "reasoning": "t"}]),
    "ATIF: a run of an agent": (
        {"schema_version": "ATIF-v1.4", "agent": {"tool_definitions": [TOOL]}, "steps": [
            {"source": "system", "message": "s"}, {"source": "user", "message": "q"},
            {"source": "agent", "message": "", "reasoning_content": "t",
             "tool_calls": [{"tool_call_id": "1", "function_name": "f", "arguments": {"x": 1}}],
             "observation": {"results": [{"source_call_id": "1", "content": "r"}]}}, {"source": "agent", "message": "a"}]},
        [S, Q, {**CALLED, "reasoning": "t"}, RESULT, A]),
    "ATIF: commands as text, steps of a former run": (
        {"schema_version": "ATIF-v1.6", "agent": {}, "steps": [
            {"source": "user", "message": [{"type": "text", "text": "q"}]}, {"source": "agent", "message": "a", "is_copied_context": True,
                                                                            "observation": {"results": [{"content": "q"}]}},
            {"source": "agent", "message": "a", "observation": {"results": [{"content": "r"}]}}]},
        [Q, {**A, "learn": False}, Q, A]),
    "SWE-agent: what the model was shown beside the history": (
        {"environment": "e", "agent": "default", "trajectory": [
            {"action": "ls", "observation": "q", "response": "a", "thought": "a", "query": [{"role": "user", "content": "q"}]},
            {"action": "submit", "observation": "", "response": "a", "query": [{"role": "user", "content": "q"}]}],
         "history": [{"role": "system", "content": "s", "agent": "main", "message_type": "system_prompt"}, {**Q, "message_type": "observation"},
                     {**A, "thought": "a", "action": "ls"}, Q, {**A, "thought": "a", "action": "submit"}]}, [S, Q, A, Q, A]),
    "SWE-agent: calls of tools, an example": (
        {"tools": [TOOL], "trajectory": [{"action": "ls"}], "history": [
            Q, {**A, "is_demo": True}, Q,
            {"role": "assistant", "content": "", "thought": "", "action": "f", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]},
            {"role": "tool", "content": "r", "tool_call_ids": ["1"]}, A]},
        [Q, {**A, "learn": False}, Q, CALLED, RESULT, A]),
    "messages as Python prints them": (
        {"messages": str([{**Q, "content": "it's q"}, {**A, "name": None}])}, [{**Q, "content": "it's q"}, A]),
    "messages as NumPy prints them": (
        {"conversations": "[{'from': 'human', 'value': 'q'}\n {'from': 'gpt', 'value': \"it's a\"}]"}, [Q, {**A, "content": "it's a"}]),
    "a chat": ({"chat": [Q, A]}, [Q, A]),
    "utterances": ({"utterances": [{"speaker": "USER", "text": "q"}, {"speaker": "ASSISTANT", "text": "a"}]}, [Q, A]),
    "a context and its response alone": ({"id": 1, "Context": "q", "Response": "a"}, [Q, A]),
    "OpenAssistant: a tree with ranked answers": (
        {"message_tree_id": "t", "prompt": {"text": "q", "role": "prompter", "replies": [
            {"text": "b", "role": "assistant", "rank": 1, "replies": []},
            {"text": "a", "role": "assistant", "rank": 0, "replies": [{"text": "q", "role": "prompter", "replies": []}]}]}}, [Q, A]),
    "ChatGPT's export: a tree, and where it ends": (
        {"title": "t", "current_node": "a", "mapping": {
            "r": {"id": "r", "children": ["q"]},
            "q": {"id": "q", "parent": "r", "message": {"id": "q", "author": {"role": "user"}, "content": {"content_type": "text", "parts": ["q"]}}},
            "b": {"id": "b", "parent": "q", "message": {"id": "b", "author": {"role": "assistant"}, "content": {"content_type": "text", "parts": ["b"]}}},
            "a": {"id": "a", "parent": "q", "message": {"id": "a", "author": {"role": "assistant"}, "content": {"content_type": "text", "parts": ["a"]}}}}},
        [Q, A]),
    "Claude's export: chat_messages": (
        {"name": "n", "chat_messages": [
            {"uuid": "1", "sender": "human", "text": "q", "parent_message_uuid": "0", "created_at": "1"},
            {"uuid": "2", "sender": "assistant", "text": "b", "parent_message_uuid": "1", "created_at": "2"},
            {"uuid": "3", "sender": "assistant", "text": "a", "parent_message_uuid": "1", "created_at": "3",
             "content": [{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "a"}]}]}, [Q, {**A, "reasoning": "t"}]),
    "Open WebUI's export": (
        {"title": "t", "chat": {"params": {"system": "s"}, "history": {"currentId": "2", "messages": {
            "1": {"id": "1", **Q}, "2": {"id": "2", "parentId": "1", **A,
                                         "content": '<details type="reasoning"><summary>S</summary>&gt; t</details>\na'}}}}},
        [S, Q, {**A, "reasoning": "t"}]),
    "LibreChat's export: the newest branch": (
        {"conversationId": "c", "recursive": True, "options": {"promptPrefix": "s"}, "messages": [
            {"messageId": "1", "isCreatedByUser": True, "sender": "User", "text": "q", "children": [
                {"messageId": "2", "isCreatedByUser": False, "sender": "GPT-4", "text": "b"},
                {"messageId": "3", "isCreatedByUser": False, "sender": "GPT-4", "text": ":::thinking\nt\n:::\na"}]}]}, [S, Q, {**A, "reasoning": "t"}]),
    "LM Studio's conversation: the version that is shown": (
        {"name": "n", "systemPrompt": "s", "messages": [
            {"versions": [{"role": "user", "content": [{"type": "text", "text": "q"}]}], "currentlySelected": 0},
            {"versions": [{"role": "assistant", "steps": [{"content": [{"type": "text", "text": "b"}]}]},
                          {"role": "assistant", "steps": [{"style": {"type": "thinking"}, "content": [{"type": "text", "text": "t"}]},
                                                          {"content": [{"type": "text", "text": "a"}]}]}], "currentlySelected": 1}]},
        [S, Q, {**A, "reasoning": "t"}]),
    "a tool's result that is a list": (
        {"messages": [Q, A, parts("user", {"toolResult": {"toolUseId": "1", "content": [{"json": [{"a": 1}, {"b": 2}]}]}}), A]},
        [Q, A, {**RESULT, "content": '[{"a": 1}, {"b": 2}]'}, A]),
}  # fmt: skip


def dumped(name: str, **kwargs: Any) -> dict[str, Any]:
    return {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", name], "kwargs": kwargs}


def block(role: str, *texts: str, **kwargs: Any) -> dict[str, Any]:
    return {
        "role": role,
        "additional_kwargs": kwargs,
        "blocks": [{"block_type": "text", "text": text} for text in texts],
    }


def part(kind: str, **fields: Any) -> dict[str, Any]:
    return {"part_kind": kind, **fields}


NUMPY_CHOICES = "{'text': array(['x', 'y'], dtype=object), 'label': array(['A', 'B'], dtype=object)}"
SPAN = "llm.input_messages.0.message.", "llm.output_messages.0.message."
READ |= {
    "LangChain: messages as it dumps them": (
        {"messages": [dumped("SystemMessage", content="s"), dumped("HumanMessage", content="q", type="human"),
                      dumped("AIMessageChunk", content="", tool_calls=[{"id": "1", "name": "f", "args": {"x": 1}}]),
                      dumped("ToolMessage", content="r", tool_call_id="1"), dumped("AIMessage", content="a")]}, [S, Q, CALLED, RESULT, A]),
    "Alpaca's template as one text": (
        {"text": "s\n\n### Instruction:\nq\n\n### Input:\nx\n\n### Response:\na</s>"}, [S, {**Q, "content": "q\n\nx"}, A]),
    "ARC's choices as NumPy prints them": ({"question": "q", "choices": NUMPY_CHOICES, "answerKey": "B"}, CHOSEN),
    "a history as Python prints it": ({"instruction": "q", "output": "a", "history": "[['q', 'a']]"}, [Q, A, Q, A]),
    "xLAM: calls as Python prints them": (
        {"query": "q", "answers": str([CALL]), "tools": str([TOOL])}, [Q, {"role": "assistant", "content": "", "tool_calls": [CALL]}]),
    "LangSmith: a run": (
        {"inputs": {"messages": [[dumped("HumanMessage", content="q")]]},
         "outputs": {"generations": [[{"text": "a", "type": "ChatGeneration", "message": dumped("AIMessage", content="a")}]]}}, [Q, A]),
    "LangSmith: an example": ({"inputs": {"question": "q"}, "outputs": {"answer": "a"}, "metadata": {}}, [Q, A]),
    "LlamaIndex: blocks": (
        {"messages": [block("system", "s"), block("user", "q"), block("assistant", tool_calls=[OPENAI_CALL]),
                      block("tool", "r", tool_call_id="1"), block("assistant", "a")]}, [S, Q, CALLED, RESULT, A]),
    "Pydantic AI: requests and responses": (
        {"messages": [
            {"kind": "request", "instructions": "s", "parts": [part("user-prompt", content="q")]},
            {"kind": "response", "parts": [part("thinking", content="t"), part("tool-call", tool_name="f", args='{"x": 1}', tool_call_id="1")]},
            {"kind": "request", "instructions": "s", "parts": [part("tool-return", tool_name="f", content={"y": 2}, tool_call_id="1")]},
            {"kind": "response", "parts": [part("text", content="a")]}]},
        [S, Q, {**CALLED, "reasoning": "t"}, {**RESULT, "content": '{"y": 2}'}, A]),
    "OpenInference: a span": (
        {"attributes": {f"{SPAN[0]}role": "user", f"{SPAN[0]}contents.0.message_content.type": "text",
                        f"{SPAN[0]}contents.0.message_content.text": "q", f"{SPAN[1]}role": "assistant",
                        f"{SPAN[1]}tool_calls.0.tool_call.id": "1", f"{SPAN[1]}tool_calls.0.tool_call.function.name": "f",
                        f"{SPAN[1]}tool_calls.0.tool_call.function.arguments": '{"x": 1}'}, "name": "LLM"}, [Q, CALLED]),
    "OpenInference: columns of Phoenix": (
        {"attributes.llm.input_messages": [{"message.role": "user", "message.content": "q"}],
         "attributes.llm.output_messages": [{"message.role": "assistant", "message.content": "a"}]}, [Q, A]),
    "OpenLLMetry: a span": (
        {"gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "q", "gen_ai.completion.0.role": "assistant",
         "gen_ai.completion.0.content": "a", "gen_ai.completion.0.finish_reason": "stop"}, [Q, A]),
    "Coze: the type of a message": (
        {"messages": [{**Q, "type": "question", "content_type": "text"}, {**A, "type": "function_call", "content": json.dumps(CALL)},
                      {**A, "type": "tool_response", "content": "r"}, {**A, "type": "verbose", "content": "{}"}, {**A, "type": "answer"},
                      {**A, "type": "follow_up", "content": "b"}]},
        [Q, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "r"}, A]),
    "what others call a follow-up": ({"messages": [Q, A, {**Q, "type": "follow_up"}, {**A, "type": "follow_up"}]}, [Q, A, Q, A]),
}  # fmt: skip
SPELLED = {
    "DeepSeek": 'x<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"x": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    "Kimi": 'x<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{"x": 1}<|tool_call_end|><|tool_calls_section_end|>',
    "Anthropic": 'x\n<function_calls>\n<invoke name="f">\n<parameter name="x">1</parameter>\n</invoke>\n</function_calls>',
    "Qwen's coder": "x\n<tool_call>\n<function=f>\n<parameter=x>\n1\n</parameter>\n</function>\n</tool_call>",
    "GLM": "x\n<tool_call>f\n<arg_key>x</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
    "Mistral": 'x[TOOL_CALLS][{"name": "f", "arguments": {"x": 1}}]',
    "Llama": 'x\n{"name": "f", "parameters": {"x": 1}}',
    "JSON in a fence": 'x\n```json\n{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}\n```',
    "Olmo": "x\n<function_calls>f(x=1)</function_calls>",
}
"""A call behind a text, as models' templates spell it."""
X_TOOL = {
    "name": "f",
    "description": "d",
    "parameters": {"properties": {"x": {"type": "integer"}, "y": {"type": "string"}}},
}
READ |= {
    f"{name}: a call spelled in the text": (
        {"messages": [Q, {**A, "content": text}], "tools": [X_TOOL]}, [Q, {**A, "content": "x", "tool_calls": [CALL]}]
    )
    for name, text in SPELLED.items()
} | {
    "calls as Python spells them, as an answer": (
        {"prompt": "q", "completion": "[f(x=1), f(x=2)]", "tools": [X_TOOL]},
        [Q, {"role": "assistant", "content": "", "tool_calls": [CALL, {**CALL, "arguments": {"x": 2}}]}]),
    "an argument that is a text by its schema": (
        {"messages": [Q, {**A, "content": "<function=f><parameter=y>1</parameter></function>"}], "tools": [X_TOOL]},
        [Q, {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {"y": "1"}}]}]),
    "a place for what the question is about": (
        {"instruction": "Sum up: {input}", "input": "x", "output": "a"}, [{**Q, "content": "Sum up: x"}, A]),
    "a name in braces that the answer has, too": (
        {"prompt": "Translate: {name}!", "completion": "Du, {name}!", "name": "x"},
        [{**Q, "content": "Translate: {name}!"}, {**A, "content": "Du, {name}!"}]),
    "code with a name in braces": (
        {"prompt": "What is `{name}`?", "completion": "a", "name": "x"}, [{**Q, "content": "What is `{name}`?"}, A]),
    "OpenAI: a prompt and its completion with separators": ({"prompt": "q\n\n###\n\n", "completion": " a END"}, [Q, A]),
    "OpenAI: an arrow behind a prompt": ({"prompt": "q ->", "completion": " a\n"}, [Q, A]),
    "OpenAI: a stop sequence behind a completion": ({"prompt": "q", "completion": " a ###"}, [Q, A]),
    "a question that ends with an arrow, an answer with a word": (
        {"prompt": "q ->", "completion": "THE END"}, [{**Q, "content": "q ->"}, {**A, "content": "THE END"}]),
    "code, and how it goes on": (
        {"prompt": "def f(x) ->", "completion": " int:"}, [{**Q, "content": "def f(x) ->"}, {**A, "content": " int:"}]),
    "a story": ({"prompt": "q", "completion": " a. THE END"}, [Q, {**A, "content": " a. THE END"}]),
    "a thought that the prompt opened": ({"messages": [Q, {**A, "content": "It is t.</think>\n\na"}]}, [Q, {**A, "reasoning": "It is t."}]),
    "a thought that the prompt opened, without lines": ({"messages": [Q, {**A, "content": "t</think>a"}]}, [Q, {**A, "reasoning": "t"}]),
    "an answer about the end of a thought": (
        {"messages": [Q, {**A, "content": "It ends by `</think>` or </think>, then\na"}]},
        [Q, {**A, "content": "It ends by `</think>` or </think>, then\na"}]),
    "a thought that nothing ends, as context": (
        {"messages": [Q, {**A, "content": "<think>t", "train": False}, Q, A]}, [Q, {**A, "content": "<think>t", "learn": False}, Q, A]),
    "a run of LangGraph": (
        {"inputs": {"messages": [Q]}, "outputs": {"messages": [{"type": "human", "content": "q"}, {"type": "ai", "content": "a"}]}}, [Q, A]),
    "LlamaIndex: a call as a block": (
        {"messages": [block("user", "q"), {**block("assistant", tool_calls=[OPENAI_CALL]), "blocks": [
            {"block_type": "tool_call", "tool_call_id": "1", "tool_name": "f", "tool_kwargs": {"x": 1}}]}]}, [Q, CALLED]),
    "AutoGen: the chat as the answering agent keeps it": (
        {"messages": [{**Q, "name": "user_proxy"}, {**A, "name": "assistant"}]}, [Q, A]),
    "a user and a bot": ({"user": "q", "bot": "a"}, [Q, A]),
    "JSON of a name that no tool has": (
        {"messages": [Q, {**A, "content": '{"name": "g", "input": {}}'}], "tools": [TOOL]}, [Q, {**A, "content": '{"name": "g", "input": {}}'}]),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_form_is_read_as_it_is_meant(name: str) -> None:
    row, expected = READ[name]
    assert find_schema(row, {}).record(row, "a", 1, Counter())["messages"] == expected


TOOLS = {
    "OpenAI": [{"type": "function", "function": {**TOOL, "strict": True}}],
    "plain": [TOOL],
    "Anthropic": [{"name": "f", "description": "d", "input_schema": {"type": "object"}, "cache_control": {"type": "x"}}],
    "Gemini": [{"functionDeclarations": [TOOL]}],
    "Converse": {"tools": [{"toolSpec": {"name": "f", "description": "d", "inputSchema": {"json": {"type": "object"}}}},
                           {"cachePoint": {"type": "default"}}]},
    "texts": [json.dumps(TOOL)],
    "text": json.dumps([{"type": "function", "function": TOOL}]),
    "a list that Python printed": str([{"type": "function", "function": TOOL}]),
    "a list of NumPy's": str([TOOL]).replace("}}]", "}}\n]"),
    "a printed tool": str(TOOL),
    "printed texts": str([json.dumps(TOOL)]),
}  # fmt: skip


@pytest.mark.parametrize("name", TOOLS)
def test_tools_of_every_form_are_read(name: str) -> None:
    unread: Counter[str] = Counter()
    row = {"messages": [Q, A], "toolConfig" if name == "Converse" else "tools": TOOLS[name]}
    assert find_schema(row, {}).record(row, "a", 1, unread)["tools"] == [TOOL]
    assert not unread


@pytest.mark.parametrize("name", ["ATIF: a run of an agent", "SWE-agent: calls of tools, an example"])
def test_tools_of_an_agents_run_are_read(name: str) -> None:
    row = READ[name][0]
    assert find_schema(row, {}).record(row, "a", 1, Counter())["tools"] == [TOOL]


def test_tools_of_both_kinds_for_a_template_and_one_that_speaks_of_the_marks_around_tools_are_read() -> None:
    first = {**TOOL, "description": "Lists what stands between <tools> and </tools>"}
    second = {**TOOL, "name": "g"}
    row = {
        "messages": [Q, A],
        "chat_template_kwargs": {"xml_tools": [json.dumps(first)], "python_tools": [str(second)]},
    }
    unread: Counter[str] = Counter()
    assert find_schema(row, {}).record(row, "a", 1, unread)["tools"] == [first, second]
    assert not unread


@pytest.mark.parametrize("key", ["return", "response"])
def test_what_a_tool_gives_back_stays_for_the_templates_that_show_it(key: str) -> None:
    tool = {**TOOL, key: {"type": "string"}}
    row, unread = {"messages": [Q, A], "tools": [{"type": "function", "function": tool}]}, Counter[str]()
    assert find_schema(row, {}).record(row, "a", 1, unread)["tools"] == [tool]
    assert not unread


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a later turn alone": ({"conversation_id": "c", "turn_id": 1, "user": "q", "assistant": "a"}, "turn_id: a turn of a conversation stands without"),
    "a turn in each row": ({"conversation_id": "c", "role": "user", "content": "q"}, "put each thread together"),
    "a row of the hub's viewer": ({"row_idx": 0, "row": {"prompt": "q", "completion": "a"}}, "what is inside `row` as columns"),
    "branches as one list": (
        {"messages": [{**Q, "id": "1"}, {**A, "parentId": "1"}, {**A, "content": "b", "parentId": "1"}]}, "two messages go on from the same one"),
    "branches from the message 0": (
        {"messages": [{**Q, "id": 0}, {**A, "parent_id": 0}, {**A, "content": "b", "parent_id": 0}]}, "two messages go on from the same one"),
    "an empty list of calls": ({"query": "q", "answers": "[]", "tools": [TOOL]}, "an empty list of calls"),
    "turns as one text that ends with an answer": (
        {"prompt": "q\n<extra_id_1>Assistant\na", "response": "a"}, "prompt holds several turns behind"),
    "OpenCodeReasoning: a question that is elsewhere": ({"input": "-", "output": "a"}, "a question is -"),
    "a result beside its solution": ({"question": "q", "solution": "long", "answer": "4"}, "another answer stands beside the answer"),
    "a call spelled in another way": (
        {"messages": [Q, {**A, "content": "x\n<functioncall> {}"}], "tools": [TOOL]}, "spelled in a text in a way that is not read"),
    "an argument that may be a number or its text": (
        {"messages": [Q, {**A, "content": "<function=f><parameter=z>1</parameter></function>"}], "tools": [X_TOOL]}, "in a way that is not read"),
    "a place that nobody filled": ({"prompt": "Greet {{ name }}", "name": "Ann", "completion": "a"}, "name: a question has an empty place for it"),
    "LangChain: an answer that was cut off": (
        {"messages": [{"type": "human", "content": "q"}, {"type": "ai", "content": "a", "response_metadata": {"finish_reason": "length"}}]},
        "an answer that was cut off"),
    "Pydantic AI: a request alone": ({"kind": "request", "parts": [part("user-prompt", content="q")]}, "put each thread together"),
    "a picture that LLaVA's mark stands for": ({"conversations": [{**HUMAN, "value": "<image>\nq"}, GPT]}, "a picture stands in a question"),
    "a picture in Markdown": ({"prompt": "Read ![x](data:image/png;base64,AAAA)", "completion": "a"}, "a picture stands in a question"),
    "a question that ends as a template does": (
        {"prompt": "q<|im_end|>\n<|im_start|>assistant\n", "completion": "a"}, "the marks of a chat template"),
    "an answer that begins as a template does": ({"prompt": "q", "completion": "<|im_start|>assistant\na"}, "the marks of a chat template"),
    "an object that JavaScript wrote as text": ({"prompt": "q", "completion": "[object Object]"}, "as tables write an empty cell"),
    "a turn that is incomplete": ({"messages": [Q, {**A, "status": "incomplete"}]}, r"cut off \(incomplete\)"),
    "a mark inside a call": (
        {"messages": [Q, {**A, "content": '<TOOLCALL>[{"name": "f", "arguments": {"x": "</TOOLCALL>"}}]</TOOLCALL>'}], "tools": [TOOL]},
        "in a way that is not read"),
    "a call of ReAct": ({"messages": [Q, {**A, "content": "x\nAction: f\nAction Input: y"}], "tools": [TOOL]}, "in a way that is not read"),
    "a call as an action": ({"messages": [Q, {**A, "content": '{"action": "f", "action_input": {}}'}], "tools": [TOOL]}, "in a way that is not read"),
    "tools that Kimi's template has rendered": (
        {"messages": [{**S, "content": "<|im_system|>tool_declare<|im_middle|>[]"}, Q, A], "available_tools": "[]"}, "the marks of a chat template"),
    "Nectar: ranked answers": ({"prompt": "q", "answers": [{"answer": "a", "rank": 1}], "num_responses": 1}, "write the best one as `chosen`"),
    "UltraFeedback: scored answers": (
        {"instruction": "q", "models": ["m"], "completions": [{"response": "a"}]}, "write the best one as `chosen`"),
    "Self-Instruct: a task with instances": ({"instruction": "q", "instances": [{"input": "i", "output": "a"}]}, "for each"),
    "verl: a question with its reward": ({"prompt": [Q], "ability": "math", "reward_model": {"ground_truth": "4"}}, "without an answer to learn"),
    "Glaive: a transcript that begins with no speaker": ({"system": "SYSTEM: s", "chat": "q\n\n\nASSISTANT: a"}, "names no speaker at its begin"),
    "tags as a list": ({"id": "1", "data": ["red", "green", "blue"]}, "data holds no messages with role and content"),
    "texts beside the names of who says them": ({"dialogue": ["q", "a"], "speakers": ["Ann", "Bob"]}, "dialogue holds no messages"),
    "texts that begin with a speaker's name": ({"conversations": ["User: q", "Bot: a"]}, "conversations holds no messages"),
    "a conversation of one text": ({"conversations": ["q"]}, "without an answer to learn"),
    "HuggingChat: branches as one list": (
        {"messages": [{"from": "user", "content": "q", "children": ["2", "3"]}, {"from": "assistant", "content": "a", "children": []},
                      {"from": "assistant", "content": "b", "children": []}]}, "two messages go on from the same one"),
    "messages as a context": ({"question": "q", "context": [Q, A], "answer": "a"}, "name what was said before it `history`"),
    "AlpacaFarm: two answers": ({"instruction": "q", "input": "", "output_1": "a", "output_2": "b", "preference": 1}, "two answers to choose from"),
    "a picture that is no container": ({"messages": [Q, A], "image": "images/cat.png"}, "images, audio"),
    "DeepSeek's export without speakers": (
        {"mapping": {"1": {"id": "1", "message": {"content": "q", "inserted_at": "1"}}}}, "do not say who speaks"),
    "pairs that are no turns": ({"Name": "n", "Instances": [{"input": "q", "output": "a"}]}, "Instances holds no messages"),
    "an event of OpenHands": ({"id": 1, "source": "agent", "action": "run", "args": {}, "message": "m"}, "put each session together"),
    "lists beside several texts": ({"task": "q", "result": "a", "tags": ["x"]}, "name two by customer_columns"),
    "a private note": ({"messages": [Q, {**A, "private": True}, A]}, "unwanted turn .messages.private is true"),
    "a note that is not public": ({"messages": [Q, {**A, "public": False}, A]}, "unwanted turn .messages.public is false"),
    "a turn that was deleted": ({"messages": [{**Q, "isDeleted": True}, Q, A]}, "unwanted turn .messages.is_deleted is true"),
    "a turn that was disliked": ({"messages": [Q, {**A, "thumbs_up": 0}, Q, A]}, "unwanted turn .messages.thumbs_up is false"),
    "a turn that was cut off": ({"messages": [Q, {**A, "stop_reason": "max_tokens"}, Q, A]}, "cut off .max_tokens"),
    "calls of AI SDK 4 without an order": (
        {"messages": [Q, {**A, "toolInvocations": [{"state": "result", "toolName": "f", "args": {}, "result": "r"}]}]}, "write `parts`"),
    "a question that a template has rendered": (
        {"prompt": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n", "completion": "a"}, "the marks of a chat template"),
    "a question that Llama's template has rendered": (
        {"prompt": "<s>[INST] q [/INST]", "completion": "a"}, "the marks of a chat template"),
    "a logged body without messages": (
        {"input": {"inputBodyJson": {"inputText": "q"}}, "output": {"outputBodyJson": {"results": []}}}, "an object around a text"),
    "an object around a question": ({"input": {"question": "q"}, "output": {"answer": "a"}}, "an object around a text"),
    "an item of an eval": ({"item": {"question": "q"}, "sample": {}}, "write what is inside `item` as columns"),
    "a stored response alone": (
        {"object": "chat.completion", "created": 1, "model": "m", "choices": [{"message": A}]}, "write its request's `messages` beside"),
    "messages under another name": ({"talk": [Q, A]}, r"name its messages by columns=\{'messages': 'talk'\}"),
    "messages that have no role": ({"messages": [{"text": "q", "direction": "INCOMING"}]}, "messages holds no messages with role and content; write them as `messages`, or name two by customer_columns"),
    "turns without speakers": ({"title": "t", "data": ["q", "a", "q", "a"]}, "data holds no messages with role and content; write them as `messages`, or name two by customer_columns"),
    "a table without a header": ({"Where is my order?": "q", "On its way": "a"}, "where its first line is a row or a title, write"),
    "columns that end with digits": ({"": "0", "gpt4": "a", "text1": "q"}, r'such as {"prompt": COLUMN, "completion": COLUMN}; docs'),
    "a text behind a call": (
        {"messages": [Q, parts("assistant", {"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1}},
                               {"type": "text", "text": "Done."})]}, "a message speaks behind its call"),
    "a text behind a call, Gemini": (
        {"contents": [turn("user", {"text": "q"}), turn("model", {"functionCall": {"name": "f", "args": {}}}, {"text": "Done."})]},
        "a message speaks behind its call"),
    "unwanted": ({"prompt": "q", "completion": "a", "label": False}, "unwanted answer"),
    "unwanted, of CSV": ({"prompt": "q", "completion": "a", "label": "False"}, "unwanted answer"),
    "unwanted conversation": ({"messages": [Q, A], "label": False}, "unwanted answer"),
    "unwanted by kto_tag": ({"messages": [Q, A], "kto_tag": False}, "unwanted answer"),
    "undesirable": ({"prompt": "q", "completion": "a", "desirable": False}, "unwanted answer"),
    "a choice or its number": ({"question": "q", "choices": ["1", "0"], "answer": "0"}, "may be a choice or the number of one"),
    "a picture's file": ({"messages": [Q, A], "Image File": "a.jpg"}, "images, audio and video"),
    "wanted, or a class": ({"prompt": "q", "completion": "a", "label": 1}, "label is 0 or 1 beside an answer"),
    "pair as text alone": ({"chosen": "a", "rejected": "b"}, "no known schema"),
    "a transcript that does not take turns": ({"text": "\n\nHuman: q\n\nHuman: r\n\nAssistant: a"}, "a text that asks nothing"),
    "a message of a tree": ({"message_id": "1", "parent_id": None, "text": "q", "role": "prompter"}, "put each thread together"),
    "a spelled call that is no JSON": (
        {"messages": [Q, {**A, "content": "<tool_call>\n{name: f}\n</tool_call>"}], "tools": [TOOL]}, "in a way that is not read"),
    "a spelled call with a set of Python's": (
        {"messages": [Q, {**A, "content": "<tool_call>\n{'name': 'f', 'arguments': {'x': {1, 2}}}\n</tool_call>"}], "tools": [TOOL]}, "in a way that is not read"),
    "an article of SQuAD": ({"title": "t", "paragraphs": [{"context": "c", "qas": []}]}, "for each question"),
    "ChatGPT's export: an end that is not there": ({"title": "t", "mapping": {"r": {"id": "r"}}, "current_node": "x"}, "is not among its messages"),
    "ChatGPT's export: no answer": ({"mapping": {"r": {"id": "r", "children": []}}, "current_node": "r"}, "without an answer to learn"),
    "OpenAssistant: a tree that was given up": ({"tree_state": "aborted_low_grade", "prompt": {"text": "q", "role": "prompter", "replies": []}}, "given up"),
    "OpenAssistant: answers that nobody ranked": (
        {"prompt": {"text": "q", "role": "prompter", "replies": [{"text": "a", "role": "assistant"}, {"text": "b", "role": "assistant"}]}},
        "without an answer to learn"),
    "Takeout: an activity of Gemini": ({"header": "Gemini Apps", "title": "Prompted q", "time": "t", "safeHtmlItem": [{"html": "<p>a</p>"}]}, "an activity of Google"),
    "Chatbot UI: all its chats": ({"version": 4, "history": [{"messages": [Q, A]}], "folders": [], "prompts": []}, "what is inside `history`"),
    "a message of Slack": ({"type": "message", "user": "U", "ts": "1", "text": "q"}, "put each thread together"),
    "an event of an agent's session": ({"type": "user", "message": Q, "uuid": "u", "parentUuid": None, "sessionId": "s"}, "put each session"),
    "a ticket of Zendesk": ({"id": 1, "subject": "s", "comments": [{"author_id": 1, "body": "q", "public": True}]}, "leave out private notes"),
    "a ticket of Intercom": ({"type": "conversation", "conversation_parts": {"conversation_parts": []}}, "leave out private notes"),
    "messages of people": ({"messages": [{"from": "Ann", "text": "q"}, {"from": "Bob", "text": "a"}]}, "the role user to who asks"),
    "two answers to choose from": ({"prompt": "q", "response_a": "x", "response_b": "y", "winner": "a"}, "write the better one as `chosen`"),
    "a batch's output alone": ({"custom_id": "1", "response": {"body": {"choices": [{"message": A}]}}}, "one side of a batch"),
    "a task of Label Studio": ({"data": {"text": "q"}, "annotations": [{"result": []}]}, "export CSV or JSON_MIN"),
    "a run of LangGraph that asks something else": ({"inputs": {"messages": [Q]}, "outputs": {"messages": [S, A]}}, "write what is inside"),
    "AutoGen: the chat as who asks keeps it": (
        {"messages": [{**A, "name": "user_proxy"}, {**Q, "name": "assistant"}, {**A, "name": "user_proxy"}]}, "take the chat as the other agent keeps it"),
    "a thought that nothing ends": ({"messages": [Q, {**A, "content": "<think>\nt"}]}, "a thought without its end"),
    "an answer that failed": ({"messages": [Q, {**A, "is_error": True}]}, "messages.is_error is true"),
    "a row that failed": ({"prompt": "q", "completion": "a", "error": True}, "error is true"),
    "an answer that was edited": ({"messages": [Q, {**A, "edited_content": "b"}]}, "another answer stands beside"),
    "Dify: an answer that was disliked": ({"query": "q", "answer": "a", "feedback": {"rating": "dislike"}}, "feedback is dislike"),
    "a turn whose feedback is bad": ({"messages": [Q, {**A, "feedback": {"rating": "thumbsDown"}}]}, "feedback is thumbs_down"),
    "a call as code to execute": ({"messages": [Q, {**A, "content": "<execute>f(x=1)</execute>"}], "tools": [TOOL]}, "a way that is not read"),
    "a call to a recipient": ({"messages": [Q, {**A, "content": 'to=functions.f {"x": 1}'}], "tools": [TOOL]}, "a way that is not read"),
    "a response that was cut off": (
        {"messages": [Q], "response": {"choices": [{"message": A, "finish_reason": "length"}]}}, r"cut off \(length\)"),
    "an answer that was cut off": ({"prompt": "q", "response": "a", "finish_reason": "length"}, r"cut off \(length\)"),
    "several responses": ({"request": {"messages": [Q]}, "response": {"choices": [{"message": A}, {"message": A}]}}, "has 2 responses"),
    "a failed response": ({"messages": [Q], "response": {"error": {"code": 429}}}, "an object around a text"),
    "an expected answer beside": ({"input": "q", "output": "b", "expected": "a"}, "another answer stands beside"),
    "a context in a message": ({"messages": [{**Q, "context": "c"}, A]}, "write it into its content"),
    "an attachment": ({"messages": [{**Q, "attachments": [{"name": "a.pdf"}]}, A]}, "attachments are not read"),
    "calls as Python text": ({"messages": [Q, {**A, "content": "", "function_calls": "f(x=1)"}]}, "write them as `tool_calls`"),
    "a test that was not passed": ({"prompt": "q", "response": "a", "passed": False}, "unwanted answer"),
    "a task that was not resolved": ({"messages": [Q, A], "resolved": 0}, "unwanted answer"),
    **{f"an empty answer as {text}": ({"prompt": "q", "response": text}, "as tables write an empty cell")
       for text in ("nan", "NULL", "<NA>", "#N/A", "#REF!")},
    "an empty question as NaN": ({"messages": [{**Q, "content": "NaN"}, A]}, "as tables write an empty cell"),
    "images beside": ({"messages": [Q, A], "images": ["a.jpg"]}, "images, audio and video are not read"),
    "image of Parquet": ({"prompt": "q", "completion": "a", "image": {"bytes": b"x"}}, "images, audio and video"),
    "image part": ({"messages": [parts("user", {"type": "image_url", "image_url": {"url": "u"}}), A]}, "unknown kind: image_url"),
    "image of Nova": ({"messages": [parts("user", {"image": {"format": "png"}}, {"text": "q"}), A]}, "unknown kind: image"),
    "file of Gemini": ({"contents": [turn("user", {"fileData": {"fileUri": "u"}}), turn("model", {"text": "a"})]}, "unknown kind: fileData"),
    "image beside a text": ({"contents": [turn("user", {"text": "q", "inlineData": {"data": "x"}}), turn("model", {"text": "a"})]}, "images, audio"),
    "audio answer": ({"messages": [Q, {**A, "audio": {"id": "x"}}]}, "images, audio and video"),
    "documents": ({"messages": [Q, A], "documents": [{"text": "d"}]}, "write them into its messages"),
    "redacted reasoning": ({"messages": [Q, parts("assistant", {"reasoningContent": {"redactedContent": "x"}}, {"text": "a"})]}, "redacted"),
    "two systems": ({"messages": [S, Q, A], "system": "other"}, "begin with another one"),
    "fractional weight": ({"messages": [Q, {**A, "weight": 0.5}]}, "not 0 or 1"),
    "reinforcement": ({"messages": [Q], "reference_answer": "a"}, "last message is not the assistant's"),
    "a hidden answer": ({"question": "q", "choices": ["x", "y"], "answer": -1}, "names none of its 2 choices"),
    "NaN in a call": ({"messages": [Q, {**CALLED, "tool_calls": [{"name": "f", "arguments": '{"x": NaN}'}]}]}, "that JSON does not have"),
    "arguments that are no JSON": ({"messages": [Q, {**CALLED, "tool_calls": [{"name": "f", "arguments": "x=1"}]}]}, "arguments are not JSON"),
    "nothing to learn": ({"messages": [Q, {**A, "weight": 0}, Q, {**A, "train": False}]}, "all turns of the assistant's are left out"),
    "a key twice in a call": ({"messages": [Q, {**CALLED, "tool_calls": [{"name": "f", "arguments": '{"x": 1, "x": 2}'}]}]}, "the same key twice"),
    "bytes": ({"prompt": b"q", "completion": "a"}, "bytes, not text"),
    "Prodigy: a class that was rejected": ({"text": "q", "label": "a", "answer": "reject"}, "unwanted class"),
    "a wrong answer": ({"problem": "q", "solution": "a", "is_correct": False}, "unwanted answer"),
    "unwanted by a number": ({"prompt": "q", "response": "a", "thumbs_up": 0}, "unwanted answer"),
    "unwanted by a number, of CSV": ({"prompt": "q", "response": "a", "accepted": "0"}, "unwanted answer"),
    "deleted": ({"messages": [Q, A], "deleted": True}, "unwanted answer"),
    "wanted, or a class, of CSV": ({"prompt": "q", "completion": "a", "label": "1"}, "label is 0 or 1 beside an answer"),
    "a corrected answer beside": ({"instruction": "q", "output": "b", "corrected": "a"}, "another answer stands beside"),
    "the number of an answer": ({"prompt": "q", "responses": ["a", "b"], "chosen": 0}, "chosen is the number of an answer"),
    "several answers": ({"question": "q", "answer": ["a", "b"]}, "answer holds 2 answers"),
    "answers that are several": ({"question": "q", "answers": ["a", "b"]}, "answers holds 2 answers"),
    "answers that are several, as NumPy prints them": ({"question": "q", "answers": "['a' 'b']"}, "answers holds 2 answers"),
    "no answer": ({"question": "q", "context": "c", "answers": {"text": [], "answer_start": []}}, "answers holds no answers"),
    "no answer, as Python prints it": (
        {"question": "q", "context": "c", "answers": "{'text': [], 'answer_start': []}"}, "answers holds no answers"),
    "an answer with what is said of it": ({"question": "q", "answer": {"value": "a", "aliases": ["x"]}}, "an object around a text"),
    "an object around messages": ({"input": {"body": {"messages": [Q]}}, "output": {"body": {"content": "a"}}}, "an object around a text"),
    "parts without a message": ({"prompt": [{"type": "text", "text": "q"}], "completion": "a"}, "an object around a text"),
    "ids of tokens": ({"inputs": [1, 2], "targets": [3, 4]}, "list of numbers"),
    "several classes": ({"text": "q", "label": ["a", "b"]}, "label holds 2 answers"),
    "a context beside messages": ({"context": "c", "messages": [Q, A]}, "a context stands beside messages"),
    "a chosen answer to another question": ({"messages": [S, Q], "chosen": [{**Q, "content": "o"}, A]}, "does not go on from the conversation"),
    "harmony: the analysis as a turn": ({"messages": [Q, {**A, "channel": "analysis"}, A]}, "only the final one is read"),
    "tools that are no JSON": ({"messages": [Q, A], "tools": ["f(x)"]}, "a tool is not JSON"),
    "a mask of a turn": ({"messages": [Q, {**A, "mask": 1}]}, "a message's mask may say what is learned, or what is not"),
    "a negative weight": ({"messages": [Q, A], "weight": -1}, "not a number of 0 or more"),
    "two names but for case": ({"Prompt": "q", "prompt ": "x", "completion": "a"}, "two columns are named prompt"),
    "two systems but for case": ({"System": "s", "SYSTEM": "x", "messages": [Q, A]}, "two columns are named system"),
    "a history of neither kind": ({"instruction": "q", "output": "a", "history": ["h"]}, "neither pairs"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(name: str) -> None:
    row, message = REFUSED[name]
    with pytest.raises((DataError, Refused), match=message):
        find_schema(row, {}).record(row, "a", 1, Counter())


MAPPED: dict[str, tuple[dict[str, Any], dict[str, str], list[dict[str, Any]] | str]] = {
    "messages as the question": ({"x": [S, Q], "y": "a"}, {"prompt": "x", "completion": "y"}, [S, Q, A]),
    "messages on both sides": ({"x": [Q], "y": [A]}, {"prompt": "x", "completion": "y"}, [Q, A]),
    "messages as JSON text": ({"x": json.dumps([Q]), "y": json.dumps(A)}, {"prompt": "x", "completion": "y"}, [Q, A]),
    "messages and the answer": ({"x": [Q], "y": "a"}, {"messages": "x", "completion": "y"}, [Q, A]),
    "a thought": (
        {"x": "q", "y": "a", "z": "t"},
        {"prompt": "x", "completion": "y", "reasoning": "z"},
        [Q, {**A, "reasoning": "t"}],
    ),
    "an object as the answer": (
        {"x": "q", "y": {"b": 1}},
        {"prompt": "x", "completion": "y"},
        [Q, {**A, "content": '{"b": 1}'}],
    ),
    "several answers": ({"x": "q", "y": ["a", "b"]}, {"prompt": "x", "completion": "y"}, "y holds 2 answers"),
    "messages in a template": ({"x": [Q], "y": "a"}, {"prompt": "Say: {x}", "completion": "y"}, "x holds messages"),
    "an empty answer": ({"x": "q", "y": "nan"}, {"prompt": "x", "completion": "y"}, "as tables write an empty cell"),
}


@pytest.mark.parametrize("name", MAPPED)
def test_a_mapping_reads_messages_as_what_they_are(name: str) -> None:
    row, columns, expected = MAPPED[name]
    schema = find_schema(row, columns)
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            schema.record(row, "a", 1, Counter())
        return
    assert schema.record(row, "a", 1, Counter())["messages"] == expected


UNREAD: dict[str, tuple[dict[str, Any], set[str]]] = {
    "what Coze adds to answers": (READ["Coze: the type of a message"][0], {"messages.follow_up", "messages.verbose", "calls of tools that are not listed"}),
    "a call of a tool that is not listed": ({"messages": [Q, CALLED], "tools": [{**TOOL, "name": "g"}]}, {"calls of tools that are not listed"}),
    "tools that stand in the system text, too": ({"messages": [{**S, "content": HERMES}, Q, A], "tools": [TOOL]}, {"tools in the system text"}),
    "a turn that was not deleted": ({"messages": [Q, {**A, "deleted": False, "private": False, "stop_reason": "end_turn"}]}, {"messages.deleted", "messages.private"}),
    "attributes that are no trace's": ({"prompt": "q", "completion": "a", "attributes": {"prompt": "x"}}, {"attributes"}),
    "a system text that nobody was shown": ({"messages": [{**S, "hidden": True, "internal": True}, Q, A]}, {"messages.hidden", "messages.internal"}),
    "what an answer shows": ({"messages": [Q, turn("assistant", {"type": "text", "text": "a"}, {"type": "source-url", "url": "u"})]}, {"parts.source-url"}),
    "what is said of a logged response": ({"messages": [Q], "response": {"choices": [{"message": A}], "model": "m", "id": "1"}}, {"response.model", "response.id"}),
    "columns": ({"prompt": "q", "completion": "a", "id": 1, "score": 0.5, "notes": "n", "empty": "", "nan": float("nan")}, {"score", "notes"}),
    "the unwanted": ({"prompt": "q", "chosen": "a", "rejected": "b"}, {"rejected"}),
    "nothing beside a class": ({"text": "q", "label": "a", "answer": ""}, set()),
    "an answer beside a class": ({"text": "q", "label": "a", "answer": "b"}, {"answer"}),
    "several classes of a conversation": ({"messages": [Q, A], "label": ["x", "y"]}, {"label"}),
    "a class beside choices": ({"question": "q", "choices": ["x", "y"], "answer": 1, "label": "l"}, {"label"}),
    "a message's": ({"messages": [{**Q, "name": "bob"}, A], "source": "web"}, {"messages.name", "source"}),
    "a thought beside several answers": ({"messages": [Q, A, Q, A], "reasoning": "t"}, {"reasoning"}),
    "Magpie's": (READ["Magpie: what a question takes to answer"][0], {"difficulty", "intent", "knowledge"}),
    "a passage's": (READ["MS MARCO: passages beside their places"][0], {"passages.is_selected", "passages.url"}),
    "a system text about marks": (READ["OpenThoughts: a thought and a solution between marks"][0], {"a system text about OpenThoughts' marks"}),
    "an agent's last result": (READ["ATIF: commands as text, steps of a former run"][0], {"turns behind the last answer that is learned"}),
    "steps of a run beside its history": (READ["SWE-agent: what the model was shown beside the history"][0], {"agent", "environment", "trajectory.action"}),
    "how much was thought": ({"prompt": "q", "completion": "a", "reasoning": "low", "thinking": True}, {"reasoning", "thinking"}),
    "the image of a container": ({"messages": [Q, A], "image": "docker.io/x/eval.x86_64:latest"}, {"image"}),
    "values for a template": (READ["SmolTalk 2: what a template is given"][0], {"chat_template_kwargs.enable_thinking"}),
    "branches of a tree": (READ["OpenAssistant: a tree with ranked answers"][0], {"message_tree_id", "branches beside the conversation"}),
    "a part's": ({"messages": [parts("user", {"type": "text", "text": "q", "annotations": [1]}), A]}, {"parts.annotations"}),
    "a citation's": ({"messages": [parts("user", {"type": "text", "text": "q"}), parts("assistant", {"type": "text", "text": "F"}, {"type": "text", "text": "our", "citations": [1]})]}, {"parts.citations"}),
    "a tool's": ({"messages": [Q, A], "tools": [{**TOOL, "returns": "x"}]}, {"tools.returns"}),
    "a result's": ({"messages": [Q, A, parts("user", {"toolResult": {"toolUseId": "1", "content": [{"text": "r"}], "status": "error"}}), A]},
                   {"parts.toolResult.status", "results of tools that no call has"}),
    "a call without a result": ({"messages": [Q, CALLED, Q, A], "tools": [TOOL]}, {"calls of tools without a result, before other turns"}),
    "a result of another call": ({"messages": [Q, CALLED, {**RESULT, "tool_call_id": "2"}, A], "tools": [TOOL]}, {"results of tools that no call has"}),
    "an answer that nobody asked for": ({"messages": [S, A, Q, A]}, {"answers before the first question"}),
    "a call with its result": ({"messages": [Q, CALLED, RESULT, A], "tools": [TOOL]}, set()),
    "OpenAI's former separators": (READ["OpenAI: a prompt and its completion with separators"][0], {"separators of OpenAI's former prompts and completions"}),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREAD)
def test_a_field_that_is_not_read_is_named(name: str) -> None:
    row, names = UNREAD[name]
    unread: Counter[str] = Counter()
    find_schema(row, {}).record(row, "a", 1, unread)
    assert unread == dict.fromkeys(names, 1)
    assert set(unread) == names


def test_texts_with_citations_are_pieces_of_one() -> None:
    pieces = [{"type": "text", "text": "Fo", "citations": [{"cited_text": "4"}]}, {"type": "text", "text": "ur."}]
    record = find_schema({"messages": [Q, A]}, {}).record(
        {"messages": [Q, parts("assistant", *pieces)]}, "a", 1, Counter()
    )
    assert record["messages"][1]["content"] == "Four."


def test_the_weight_of_a_conversation_is_read() -> None:
    record = find_schema(row := {"messages": [Q, A], "weight": 0.5}, {}).record(row, "a", 1, Counter())
    assert record["weight"] == 0.5


def test_a_mapping_takes_columns_at_their_word() -> None:
    row = {"m": [Q, A], "who": "s", "images": ["x"], "label": False}
    unread: Counter[str] = Counter()
    record = find_schema(row, {"messages": "m", "system": "who"}).record(row, "a", 1, unread)
    assert record["messages"] == [S, Q, A]
    assert unread == {"images": 1, "label": 1}
    with pytest.raises(ConfigError, match=r"prompt is '\{\{m\}\}'; a column stands in one pair of braces"):
        find_schema(row, {"prompt": "{{m}}", "completion": "m"})
