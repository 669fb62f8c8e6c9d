"""What lmms-eval finds of this package: module -> class."""

AVAILABLE_MODELS = {"theworld": "TheWorld"}
