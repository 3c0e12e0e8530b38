"""A pack that cannot be imported, because what it needs is not installed."""

import a_package_that_nobody_has  # noqa: F401
