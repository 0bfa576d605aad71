"""`fleet-controller init`: the fleet's certificate authority, and somebody who may use the fleet from here."""

import argparse
import getpass
import re
import sys

from fleet_core.contexts import Context, ContextError, config_path, save_context
from fleet_core.ids import check_name
from fleet_core.install.certificates import files_in
from fleet_core.install.command import AUTHORITY_FOLDER
from fleet_core.tls import Identity, Role

DEFAULT_PORT = 7400


def init(arguments: argparse.Namespace) -> int:
    """What is there already is kept. Returns the exit status: 0 done, 1 failed."""
    from fleet_core.authority import create_authority, issue_into

    authority = (arguments.authority or AUTHORITY_FOLDER).absolute()
    try:
        operator = Identity(Role.OPERATOR, arguments.operator or _login_name())
        check_name("operator", operator.name)
        create_authority(authority)
        files = files_in(config_path().parent / arguments.context)
        issue_into(authority, files, operator)
        context = Context(tuple(arguments.controllers), files.authority, files.certificate, files.key)
        save_context(arguments.context, context, make_current=True)
    except (OSError, ValueError, ContextError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        print(f"fleet-controller: {text}", file=sys.stderr)
        return 1
    print(f"authority    {authority}: whoever reads ca.key owns the fleet")
    print(f"operator     {operator.name}: fleetctl here, context {arguments.context}")
    print("next         fleetctl cert issue controller NAME, then fleet-controller install")
    return 0


def _login_name() -> str:
    """Made a name of a fleet, where the account's has other characters."""
    return re.sub(r"[^a-z0-9]+", "-", getpass.getuser().lower()).strip("-") or "operator"
