"""The one family of errors that a user can meet.

Every message says what was wrong, where, and how to put it right, in one line. The command line
prints it and exits with status 2; a traceback shown to a user is a defect.
"""


class SnlError(Exception):
    """Anything a user did or has that cannot be worked with; the message names the way out."""


class SettingsError(SnlError):
    """A setting that is unknown, malformed or contradicts another."""


class DataError(SnlError):
    """A data set that cannot be used: no images, unknown layout, missing split."""


class ImageError(DataError):
    """One image that cannot be used: unreadable, truncated, empty, too large, no image."""


class WeightsError(SnlError):
    """Teacher weights that cannot be found, read, or that do not fit the network."""


class BundleError(SnlError):
    """A bundle or checkpoint that is damaged, truncated, foreign or of a newer format."""


class TrainingError(SnlError):
    """Training that cannot start, go on or be resumed."""


class DependencyError(SnlError):
    """A package of an optional extra that is not installed."""


class PluginError(SnlError):
    """A plug-in that is missing, broken, or registered wrongly."""
