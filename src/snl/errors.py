"""All exceptions that a user of the package can get.

Every message says in one line what is wrong, where, and how to fix it. The command line prints the
message and exits with status 2; a traceback shown to a user is a bug.
"""


class SnlError(Exception):
    """Base class: invalid input, files or environment. The message says how to fix it."""


class SettingsError(SnlError):
    """A setting is unknown, malformed or contradicts another."""


class DataError(SnlError):
    """A data set cannot be used: no images, unknown layout, missing split."""


class ImageError(DataError):
    """An image cannot be used: unreadable, truncated, empty, too large, or not an image."""


class NotFiniteError(ImageError):
    """The network's result for an image is infinite or not a number."""


class WeightsError(SnlError):
    """Teacher weights are missing, unreadable, or do not match the network."""


class BundleError(SnlError):
    """A bundle or checkpoint is damaged, truncated, of another program or of a newer format."""


class TrainingError(SnlError):
    """Training cannot start, continue or be resumed."""


class DependencyError(SnlError):
    """A package of an optional extra is not installed."""


class PluginError(SnlError):
    """A plug-in is missing, broken, or registered wrongly."""
