"""Who may come in: whoever has a key; without keys, programs of this machine and our own page.

Without keys the gateway listens on a loopback address alone. That keeps other machines out, but not other sites' pages
in a browser here: those say their `Origin`, and a site that has its own name lead here says that name as `Host`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from inferbus_client.gateway.errors import RefusedError
from inferbus_client.gateway.keys import ApiKey, ApiKeys
from inferbus_client.web.listening import is_loopback

if TYPE_CHECKING:
    from starlette.datastructures import Headers


class Visitors:
    """Lets in, or says why not.

    Args:
        keys: None where none are needed.
        origins: other sites whose pages may ask.
    """

    def __init__(self, keys: ApiKeys | None, origins: Collection[str]) -> None:
        self.keys = keys
        self._origins: Final = frozenset(origins)

    def check_page(self, headers: Headers) -> None:
        """Whether somebody may see what needs no key.

        Raises:
            RefusedError: it is asked for by another site.
        """
        if self.keys is not None:
            return
        host, origin = headers.get("host", ""), headers.get("origin")
        if not is_loopback(host if ":" in host.rpartition("]")[2] else f"{host}:80"):
            raise RefusedError(403, "wrong_host", "Without keys this is for this machine alone: ask for localhost.")
        if origin is not None and origin not in self._origins and origin != f"http://{host}":
            raise RefusedError(403, "wrong_origin", "Other sites may not ask: --cors-origin names those that may.")

    def check(self, headers: Headers, *, for_operators: bool = False) -> ApiKey | None:
        """The key of a request; None where none is needed.

        Raises:
            RefusedError: it has none, or one that is not good for this.
        """
        self.check_page(headers)
        if self.keys is None:
            return None
        kind, _, token = headers.get("authorization", "").partition(" ")
        shown = token.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        key = self.keys.find(shown)
        if key is None:
            why = "This API key is not known here." if shown else "An API key is needed: Authorization: Bearer KEY."
            raise RefusedError(401, "invalid_api_key", why)
        if for_operators and not key.is_operator:
            raise RefusedError(403, "not_an_operator", "This is for the keys of operators.")
        return key

    def may_look(self, headers: Headers) -> bool:
        """Whether a request may see, or go on to see, how the bus is."""
        try:
            self.check(headers, for_operators=True)
        except RefusedError:
            return False
        return True
