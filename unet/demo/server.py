"""The page's server: bound to one address, from where nothing is fetched and to which no other site can speak."""

# pyright: reportMissingImports=false

import ipaddress
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from unet.errors import UserError

if TYPE_CHECKING:
    import gradio as gr

POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'"
"""What the browser may load: this page's own, however Gradio's scripts may ask for more."""
Message = MutableMapping[str, Any]


@contextmanager
def spare_folder() -> Iterator[None]:
    """Where Gradio keeps uploads and pictures, for as long as this lasts. Components must be made inside."""
    with tempfile.TemporaryDirectory(prefix="unet-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        yield


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes any that is free.

    Raises:
        UserError: the port is in use or not allowed, or the host is no address of this machine.
    """
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port < 2**16:
        raise UserError(f"port: expected an integer of 0 (any) to {2**16 - 1}, found {port!r}")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"host={host} port={port}: cannot be listened to ({error.strerror}); choose another port, such as "
            f"port={port % (2**16 - 1) + 1}, or another host"
        ) from None


def loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def application(page: "gr.Blocks", host: str, port: int, megabytes: float) -> Any:
    """The page as an ASGI application: uploads limited, no footer, no history, nothing from other hosts."""
    import fastapi
    import gradio as gr
    from gradio.themes import Default
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from unet.demo.page import STYLE

    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guarded)
    if loopback(host):  # a page elsewhere, whose name was pointed here, is told so
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]", host])
    app = gr.mount_gradio_app(
        app, page, path="", server_name=host, server_port=port, footer_links=[], run_history=False, show_error=True,
        max_file_size=int(megabytes * 2**20), theme=Default(font=FONT, font_mono=MONO), css=STYLE,
        ssr_mode=False, mcp_server=False, pwa=False, enable_monitoring=False,
    )  # fmt: skip
    page.has_launched = True  # mounting leaves it unset, and Gradio then takes any file of this machine for an upload
    return app


FONT, MONO = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
"""The reader's own; a theme's would be fetched."""


class Guarded:
    """ASGI middleware: every answer says :data:`POLICY`."""

    def __init__(self, app: Callable[..., Awaitable[None]]):
        self.app = app

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
            await send(message)

        await self.app(scope, receive, sent if scope["type"] == "http" else send)


def serve(page: "gr.Blocks", listening: socket.socket, host: str, megabytes: float) -> None:
    """Answer until Ctrl-C or SIGTERM."""
    import uvicorn

    port = listening.getsockname()[1]
    config = uvicorn.Config(
        application(page, host, port, megabytes), log_level="error", access_log=False, timeout_graceful_shutdown=2
    )
    uvicorn.Server(config).run(sockets=[listening])
