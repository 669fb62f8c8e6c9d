"""OpenImages' files of the wanted ids, fetched until all that exist are there."""
