"""Any server with OpenAI's chat interface: vLLM, llama.cpp's server, and the like. Needs the extra `api`.

Many requests are under way at once. A try has a limit in seconds from start to end, also where a server sends a byte
now and then; a try that ran out, 408, 429, 5xx, a broken connection and a body that is no reply are tried again after a
pause that doubles, or as long as the server asks for. What is no reply after the last try is an error, never an empty
reply.
"""

import asyncio
import base64
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
import tenacity

from kd_evalsuite.images import mime_type
from kd_evalsuite.items import DataError
from kd_evalsuite.models.base import Reply, Request
from kd_evalsuite.records import ModelRef

KEY = "OPENAI_API_KEY"  # the environment variable with the server's key; it is written nowhere
LARGEST_BODY = 8 << 20  # bytes
LONGEST_PAUSE = 60.0  # seconds
AGAIN = {408, 429, 500, 502, 503, 504}
IDENTITY = ("id", "root", "parent", "owned_by", "max_model_len", "meta")  # what a server says of a model's weights


class EndpointError(RuntimeError):
    """The server gave no reply to an item."""


class _TryAgainError(EndpointError):
    """It may give one later; `pause` is what it asked for, in seconds."""

    def __init__(self, said: str, pause: float = 0.0) -> None:
        super().__init__(said)
        self.pause = pause


class Endpoint:
    """Answers of a model that a server has.

    Args:
        url: Of the interface, e.g. `http://127.0.0.1:8000/v1`.
        model: The name under which the server knows it; empty where it has only one.
        concurrency: Requests under way at once.
        timeout: Seconds that one try may take, from start to end.
        tries: Of one item.
        pause: Seconds before the second try; they double from one to the next.

    Raises:
        DataError: If the server is not reached, has no such model, or has several and none is named.
    """

    def __init__(
        self, url: str, model: str = "", *, concurrency: int = 16, timeout: float = 120.0, tries: int = 5,
        pause: float = 1.0,
    ) -> None:  # fmt: skip
        if urlsplit(url).username is not None:  # it would be written beside the predictions
            raise DataError(f"Expected an address without a name or password; the server's key goes into {KEY}.")
        self.url, self.timeout, self.tries, self.pause = url.rstrip("/"), timeout, tries, pause
        self.concurrency = concurrency
        self.described = asyncio.run(self._find(model))
        self.model = str(self.described["id"])

    @property
    def ref(self) -> ModelRef:
        """Name and digest of what the server says of the model; of its weights nothing else is known."""
        said = {name: self.described[name] for name in IDENTITY if name in self.described}
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
        return ModelRef(kind="endpoint", name=self.model, sha256=digest)

    @property
    def how(self) -> dict[str, str]:
        """Where it is asked."""
        return {"class": "Endpoint", "url": self.url, "answers": f"{self.concurrency} requests at once"}

    def answer(self, requests: Sequence[Request], max_new_tokens: int) -> list[Reply]:
        """One reply a request, in order.

        Raises:
            EndpointError: If one of them has none.
        """
        found: dict[int, Reply] = {}
        for number, reply in self.answer_each(requests, max_new_tokens):
            if isinstance(reply, Exception):
                raise reply
            found[number] = reply
        return [found[number] for number in range(len(requests))]

    def answer_each(self, requests: Sequence[Request], max_new_tokens: int) -> Iterator[tuple[int, Reply | Exception]]:
        """(number of the request, its reply or why there is none), as they come."""
        with asyncio.Runner() as runner:  # which cancels what is under way when the caller goes away
            done: asyncio.Queue[tuple[int, Reply | Exception] | None] = asyncio.Queue()
            work = runner.get_loop().create_task(self._all(requests, max_new_tokens, done))
            while (one := runner.run(done.get())) is not None:
                yield one
            runner.run(_result(work))

    async def _all(
        self,
        requests: Sequence[Request],
        max_new_tokens: int,
        done: "asyncio.Queue[tuple[int, Reply | Exception] | None]",
    ) -> None:
        left = iter(enumerate(requests))

        async def ask_on(client: httpx.AsyncClient) -> None:
            for number, request in left:
                try:
                    done.put_nowait((number, await self._ask(client, request, max_new_tokens)))
                except Exception as error:  # of this item alone
                    done.put_nowait((number, error))

        try:
            async with self._client() as client:
                await asyncio.gather(*(ask_on(client) for _ in range(self.concurrency)))
        finally:
            done.put_nowait(None)

    async def _ask(self, client: httpx.AsyncClient, request: Request, max_new_tokens: int) -> Reply:
        content = [*map(_image, request.images), {"type": "text", "text": request.text}]
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": max_new_tokens,
            "temperature": 0,
            "stream": False,
        }
        sent = json.dumps(body).encode("utf-8", "replace")

        async def once() -> tuple[str, int]:
            return _reply_of(await self._fetch(client, "POST", "/chat/completions", sent))

        began = time.monotonic()
        attempts = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self.tries),
            wait=self._wait,
            retry=tenacity.retry_if_exception_type(_TryAgainError),
            reraise=True,
        )
        found: tuple[str, int] = await attempts(once)
        return Reply(*found, seconds=time.monotonic() - began)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.pause if isinstance(error, _TryAgainError) else 0.0
        drawn = tenacity.wait_exponential_jitter(self.pause, LONGEST_PAUSE, jitter=self.pause)(state)
        return min(max(asked, drawn), LONGEST_PAUSE)

    def _client(self) -> httpx.AsyncClient:
        key = os.environ.get(KEY)
        return httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=self.timeout,
            limits=httpx.Limits(max_connections=self.concurrency),
            trust_env=urlsplit(self.url).hostname
            not in ("localhost", "127.0.0.1", "::1"),  # no proxy to one's own machine
        )

    async def _fetch(self, client: httpx.AsyncClient, method: str, path: str, content: bytes = b"") -> bytes:
        """The body of a successful response, bounded in bytes and in seconds."""
        found = bytearray()
        headers = {"Content-Type": "application/json"} if content else {}
        try:
            async with asyncio.timeout(self.timeout):
                async with client.stream(method, self.url + path, content=content, headers=headers) as response:
                    async for part in response.aiter_bytes():
                        found += part
                        if len(found) > LARGEST_BODY:
                            raise EndpointError(f"the server sent more than {LARGEST_BODY} bytes")
        except TimeoutError:
            raise _TryAgainError(f"no whole reply in {self.timeout:g} s") from None
        except httpx.InvalidURL as error:
            raise EndpointError(f"not an address: {error}") from error
        except httpx.HTTPError as error:
            raise _TryAgainError(f"{type(error).__name__}: {error}") from error
        if response.status_code == httpx.codes.OK:
            return bytes(found)
        said = f"HTTP {response.status_code}: {bytes(found[:200]).decode('utf-8', 'replace')}"
        if response.status_code in AGAIN:
            after = response.headers.get("Retry-After", "")
            raise _TryAgainError(said, float(after) if after.isdigit() else 0.0)
        raise EndpointError(said)

    async def _find(self, model: str) -> dict[str, Any]:
        try:
            async with self._client() as client:
                data = json.loads(await self._fetch(client, "GET", "/models"))["data"]
            served = {str(entry["id"]): dict(entry) for entry in data}
        except (EndpointError, ValueError, KeyError, TypeError) as error:
            if model and "HTTP 404" in str(error):
                return {"id": model}  # a server that does not list its models
            raise DataError(f"Expected a server with OpenAI's interface at {self.url}: {error}") from error
        if model and model not in served:
            raise DataError(f"{self.url} has no model {model!r}; it has {', '.join(served) or 'none'}.")
        if not model and len(served) != 1:
            raise DataError(f"{self.url} has {len(served)} models; name one: {self.url}#NAME ({', '.join(served)}).")
        return served[model] if model else next(iter(served.values()))


async def _result(work: "asyncio.Task[None]") -> None:
    await work


def _image(shown: Any) -> dict[str, Any]:
    data = shown.picture.read()
    url = f"data:{mime_type(data)};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _reply_of(body: bytes) -> tuple[str, int]:
    """Text and number of tokens of a chat completion."""
    try:
        found = json.loads(body)
        text = found["choices"][0]["message"]["content"]
        tokens = (found.get("usage") or {}).get("completion_tokens")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        said = body[:80].decode("utf-8", "replace")
        raise _TryAgainError(f"not a chat completion ({type(error).__name__}): {said!r}") from error
    if not isinstance(text, str):
        raise _TryAgainError(f"a completion without text: {str(text)[:80]}")
    return text.strip(), tokens if isinstance(tokens, int) and tokens >= 0 else 0
