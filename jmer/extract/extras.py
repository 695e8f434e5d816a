"""Packages that come with an extra of jmer, imported when they are first needed."""

import importlib
from types import ModuleType

from jmer.errors import UserError


def require(module: str, extra: str, what: str) -> ModuleType:
    """Imports a module of a package that an extra installs.

    Args:
      module: its name.
      extra: of setup.cfg.
      what: needs it, for the message.

    Raises:
      UserError: naming the extra, if the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UserError(
            f"{what}: the package {package} is needed and not installed ({error}): pip install 'jmer[{extra}]'"
        ) from error
