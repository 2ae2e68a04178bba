"""pydantic-ai, an asynchronous agent framework: its answer as a stream."""

from pydantic_ai import Agent

from resumable_sync.async_source import from_async


def ask(context, answer_id, agent: Agent, question):
    async def answer():
        async with agent.run_stream(question) as result:
            async for piece in result.stream_text(delta=True, debounce_by=None):
                yield piece

    return context.run(answer_id, from_async(answer))
