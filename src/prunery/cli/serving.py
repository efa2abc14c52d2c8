"""`prunery ui`: says where the page is, opens it, and serves until it is stopped."""

import sys
import webbrowser

import typer

from ..report import Site, address, served
from ..spec import Refused
from . import screen


def serve(site: Site, port: int, in_browser: bool, as_json: bool) -> None:
    """Until Ctrl-C, which is how one ends it and no failure."""
    if not site.runs.is_dir():
        raise Refused(
            f"{site.runs} is no folder of runs; expected one: start with prunery demo, or choose another (--runs)"
        )
    with served(site, port) as server:
        where = address(server)
        if as_json:
            screen.as_json({"address": where, "runs": str(site.runs)})
        else:
            typer.echo(f"{where} shows {site.runs}, on this machine only; Ctrl-C ends it")
        sys.stdout.flush()  # whoever reads a pipe waits for it
        if in_browser:
            webbrowser.open(where)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
