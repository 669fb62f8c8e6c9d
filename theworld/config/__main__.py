"""All keys of the YAML as a table: python -m theworld.config"""

from theworld.config.describe import describe_keys, markdown_table

if __name__ == "__main__":
    print(markdown_table(describe_keys()), end="")
