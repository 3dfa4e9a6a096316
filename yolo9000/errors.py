"""The errors this package raises on purpose. The command line prints each as one line; others are bugs."""

# Of weights that make infinities of a picture: a ModelError, or a TrainingError of who scores a model.
NO_NUMBER = "the network answers with what is no number: its weights are damaged or absurd"


class ModelError(Exception):
    """A network description, weight or model file that cannot be used; says what was wanted and found."""


class ImageError(Exception):
    """A picture that cannot be read; names the file and the reason."""


class TrainingError(Exception):
    """A training run that cannot start or go on; names the setting, file or images at fault."""


class LoaderError(TrainingError):
    """A process that loads pictures was killed by the system; says what to do."""
