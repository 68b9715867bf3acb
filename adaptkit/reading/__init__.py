"""Reading a recipe: YAML with line numbers, variables, overrides, and problems a person can act on."""
