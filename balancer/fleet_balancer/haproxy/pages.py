"""What HAProxy itself answers for an app: error pages, kept as files beside the configuration. Pure."""

import hashlib
import math
from collections.abc import Iterable

from fleet_core.route import ERROR_PAGES, RoutePolicy

PAGES = "pages"
"""The folder, beside the configuration, of the pages that HAProxy reads when it starts."""


def page_files(policies: Iterable[RoutePolicy]) -> dict[str, bytes]:
    """File name → content, of all pages."""
    contents = {content.encode() for policy in policies for content in policy.error_pages.values()}
    return {_name(content): content for content in contents}


def error_lines(policy: RoutePolicy) -> Iterable[str]:
    """For what is not answered as HAProxy, or every section, does it."""
    for status in ERROR_PAGES:
        page = policy.error_pages.get(status)
        if page is not None:
            what = f'"text/html; charset=utf-8" file {PAGES}/{_name(page.encode())}'
        elif status == 429 and policy.rate_limit.requests:
            what = '"text/plain" string "Too many requests.\\n"'
        else:
            continue
        yield f"    http-error status {status} content-type {what}{_retry_after(policy, status)}"


def _retry_after(policy: RoutePolicy, status: int) -> str:
    seconds = {429: math.ceil(policy.rate_limit.per_seconds), 503: 1}.get(status)
    return "" if seconds is None else f" hdr Retry-After {seconds}"


def _name(content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()}.html"
