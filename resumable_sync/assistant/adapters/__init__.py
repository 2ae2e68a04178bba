"""What a model's client streams, as the answer of a callback: one line per model.

    from resumable_sync.assistant.adapters import write_openai

    def answer(controller, chat):
        write_openai(controller, model.chat.completions.create(model="…", messages=…, stream=True))

`write_openai` takes the events of OpenAI's chat completions, of what speaks that API (LiteLLM, vLLM, Ollama, …),
and of its responses; `write_anthropic` those of Anthropic's messages; `write_langchain` the chunks of LangChain's
chat models. Events are objects or plain dicts: no provider's package is imported, and the raw stream of a client
serves as well as its helper (`with client.messages.stream(…) as stream`), which accumulates the answer meanwhile.

What is written: text, refusals too; reasoning; tool calls, as their arguments come; tools that the provider runs,
with what they returned; what was cited, once, as sources after the text; a step with its finish reason and usage,
and both for the message once it ends. What is returned, a `ModelTurn`, has the calls that want an answer:

    while (turn := write_openai(controller, ask(messages))).tool_calls:
        messages.append({"role": "assistant", "tool_calls": [call.to_openai() for call in turn.tool_calls]})
        for call in turn.tool_calls:
            result = TOOLS[call.name](**call.args)
            call.set_response(result)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(result)})

A call that is left without an answer is the client's. None is declared complete before the whole answer is.

**An answer that breaks off** raises: what the client raises, or UpstreamError where it tells of an error or ends
without a finish reason, as a connection that was cut may look like. The message then ends with an error. Calls
that had begun get an answer that says so, and no client runs them; nor those of an answer that was cut for its
length or its content. Whoever catches the exception may ask the model again.

**A cancelled stream** shuts the connection to the model's server at once, in the middle of a silence too, where
`stream` holds a response of httpx, as those of OpenAI and Anthropic do. Any other is closed by its own `close`; a
generator, such as LangChain's, only at its next event: Python allows no more. It raises StreamCancelledError.
While a client still waits for the first bytes, which is before there is a stream, nothing here can break its wait.
"""

from ...errors import UpstreamError
from .anthropic import write_anthropic
from .langchain import write_langchain
from .openai import write_openai
from .turn import ModelToolCall, ModelTurn

__all__ = ["ModelToolCall", "ModelTurn", "UpstreamError", "write_anthropic", "write_langchain", "write_openai"]
