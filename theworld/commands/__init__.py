"""The commands: what the scripts in convert/ and recipes/ and the console commands of an installation run."""
