"""Third-party capture and export, without what they log, warn and print for their own developers."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep torch.export and the ONNX exporter silent: what goes wrong is in their exception, once.

    Example:
        >>> with quiet():
        ...     logging.getLogger("torch").critical("nobody reads this")
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
